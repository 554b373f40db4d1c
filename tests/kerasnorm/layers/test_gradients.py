"""Gradients of the layers: the oracle's closed form, and central differences."""

import numpy as np
import pytest
import tensorflow as tf

from kerasnorm import (
    KBatchNorm,
    KDropout,
    KGaussianDropout,
    KSpatialDropout,
    functional,
)
from kerasnorm.backend import tensorflow as kernels
from tests import oracle

EPSILON = 0.05
LAYOUTS = [
    ((6, 3), -1, (0,)),
    ((4, 3, 2), 1, (0, 2)),
    ((3, 2, 3, 2), -1, (0, 1, 2)),
    ((2, 2, 2, 3, 2), -1, (0, 1, 2, 3)),
    ((4, 2, 3), (1, 2), (0,)),
]
LAYOUT = pytest.mark.parametrize(("shape", "axis", "axes"), LAYOUTS)


def arrays(shape, seed=0):
    """Inputs that are neither constant nor centred, and an output gradient."""
    rng = np.random.default_rng(seed)
    return rng.normal(3, 2, shape), rng.normal(0.5, 1, shape)


def randomised(shape, axis, seed=1, **options):
    layer = KBatchNorm(axis, epsilon=EPSILON, dtype="float64", **options)
    layer.build(shape)
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        if weight.name in ("beta", "moving_mean", "renorm_mean"):
            weight.assign(rng.normal(1, 1, weight.shape))
        else:
            weight.assign(rng.uniform(0.5, 2, weight.shape))
    return layer


def gradients(layer, x, dy, **call):
    """Of sum(dy * y) by the inputs and the trainable weights."""
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(dy * layer(x, **call))
    return tape.gradient(loss, [x, *(w.value for w in layer.trainable_weights)])


@pytest.mark.parametrize("masked", [False, True])
@LAYOUT
def test_training(shape, axis, axes, masked):
    x, dy = arrays(shape)
    mask = np.random.default_rng(3).random(shape) < 0.7 if masked else None
    layer = randomised(shape, axis)
    gamma = layer.gamma.numpy()
    ours = gradients(layer, x, dy, training=True, mask=mask)
    expected = oracle.batch_norm_gradients(dy, x, axes, gamma, EPSILON, mask)
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11)


@LAYOUT
def test_training_in_float32_at_a_mean_of_ten_thousand(shape, axis, axes):
    x, dy = arrays(shape)
    x, dy = (x + 1e4).astype("float32"), dy.astype("float32")
    layer = KBatchNorm(axis, epsilon=EPSILON)
    ours = gradients(layer, x, dy, training=True)[0]
    expected = oracle.batch_norm_gradients(
        dy, x, axes, np.ones(layer.gamma.shape), EPSILON
    )
    # An error of the mean of 1e4 * eps / 2 changes each deviation by that much,
    # relative to a standard deviation of about 1 for batches as small as these.
    np.testing.assert_allclose(ours, expected.x, atol=0.01)


@pytest.mark.parametrize("masked", [False, True])
@LAYOUT
def test_batch_renormalization(shape, axis, axes, masked):
    """With no gradient through r and d, which are not 1 and 0 here."""
    x, dy = arrays(shape)
    mask = np.random.default_rng(3).random(shape) < 0.7 if masked else None
    clipping = {"rmin": 0.5, "rmax": 2.0, "dmax": 1.0}
    layer = randomised(shape, axis, renorm=True, renorm_clipping=clipping)
    _, mean, variance = oracle.moments(x, axes, mask)
    r, d = oracle.renorm_correction(
        mean,
        np.sqrt(variance + EPSILON),
        layer.renorm_mean.numpy(),
        layer.renorm_stddev.numpy(),
        **clipping,
    )
    expected = oracle.batch_norm_gradients(
        dy, x, axes, layer.gamma.numpy(), EPSILON, mask, r, d
    )
    ours = gradients(layer, x, dy, training=True, mask=mask)
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11)


@LAYOUT
def test_inference(shape, axis, axes):
    """An affine map: dx = dy gamma / stddev, at inference and when frozen."""
    x, dy = arrays(shape)
    layer = randomised(shape, axis)
    stddev = np.sqrt(layer.moving_variance.numpy() + EPSILON)
    x_hat = (x - np.expand_dims(layer.moving_mean.numpy(), axes)) / np.expand_dims(
        stddev, axes
    )
    dx = dy * np.expand_dims(layer.gamma.numpy() / stddev, axes)
    ours = gradients(layer, x, dy, training=False)
    expected = (dx, (dy * x_hat).sum(axes), dy.sum(axes))
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11)
    layer.trainable = False
    (ours,) = gradients(layer, x, dy, training=True)
    np.testing.assert_allclose(ours, dx, rtol=1e-11)


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
@pytest.mark.parametrize("renorm", [False, True])
def test_central_differences(renorm, mode):
    """The layer's own outputs, perturbed: no reference to its formulas.

    r and d of renorm are held where they are by clipping them to one value.
    """
    shape = (4, 2, 3)
    x, dy = arrays(shape)
    clipping = {"rmin": 1.3, "rmax": 1.3, "dmax": 0.0} if renorm else None
    layer = randomised(shape, 1, renorm=renorm, renorm_clipping=clipping)
    mask = np.random.default_rng(3).random((4, 1, 3)) < 0.8

    def value_and_gradients(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(dy * layer(x, training=True, mask=mask))
        return loss, tape.gradient(loss, x)

    if mode != "eager":
        value_and_gradients = tf.function(
            value_and_gradients, jit_compile=mode == "xla"
        )
    _, ours = value_and_gradients(tf.convert_to_tensor(x))
    step = 1e-5
    expected = np.empty_like(x)
    for index in np.ndindex(shape):
        above, below = x.copy(), x.copy()
        above[index] += step
        below[index] -= step
        losses = [
            value_and_gradients(tf.convert_to_tensor(v))[0] for v in (above, below)
        ]
        expected[index] = (losses[0] - losses[1]) / (2 * step)
    # Truncation is of the order of step^2, rounding of 1e-16 * loss / step.
    np.testing.assert_allclose(ours, expected, atol=1e-8)


@pytest.mark.parametrize("scale_at", ["training", "inference"])
@pytest.mark.parametrize("rate", [0.2, 0.5, 1.0])
def test_dropout(rate, scale_at):
    x, dy = arrays((6, 5, 4))
    layer = KDropout(rate, seed=2, scale_at=scale_at, dtype="float64")
    mask = oracle.keep_mask(x.shape, rate, (2, 0))
    (ours,) = gradients(layer, x, dy, training=True)
    if scale_at == "training":
        expected, inference = oracle.inverted_dropout(dy, mask, rate), dy
    else:
        expected, inference = oracle.thin(dy, mask), oracle.scale_weights(dy, rate)
    np.testing.assert_allclose(ours, expected, rtol=1e-14)
    (ours,) = gradients(layer, x, dy, training=False)
    np.testing.assert_allclose(ours, inference, rtol=1e-14)


def test_spatial_dropout():
    x, dy = arrays((6, 5, 4))
    mask = np.broadcast_to(oracle.keep_mask((6, 1, 4), 0.3, (2, 0)), x.shape)
    layer = KSpatialDropout(0.3, seed=2, dtype="float64")
    (ours,) = gradients(layer, x, dy, training=True)
    np.testing.assert_allclose(ours, oracle.inverted_dropout(dy, mask, 0.3), rtol=1e-14)


def test_gaussian_dropout():
    x, dy = arrays((6, 5, 4))
    layer = KGaussianDropout(0.3, seed=2, dtype="float64")
    (ours,) = gradients(layer, x, dy, training=True)
    noise = oracle.gaussian_noise(x.shape, 0.3, (2, 0))
    np.testing.assert_allclose(ours, dy * noise, atol=1e-4 * np.abs(dy).max())


def test_dropped_infinities_leave_no_trace():
    """0 * inf would be NaN, forward and backward."""
    x, dy = arrays((6, 5))
    mask = oracle.keep_mask(x.shape, 0.5, (2, 0))
    x[~mask] = np.inf
    layer = KDropout(0.5, seed=2, dtype="float64")
    (ours,) = gradients(layer, x, dy, training=True)
    np.testing.assert_array_equal(ours, oracle.inverted_dropout(dy, mask, 0.5))


def test_scale_invariance_of_section_3_3():
    """BN((aW)u) = BN(Wu), and the gradient by aW is 1/a of that by W, at epsilon 0."""
    rng = np.random.default_rng(5)
    u, w, dy = rng.normal(1, 1, (8, 4)), rng.normal(0, 1, (4, 3)), arrays((8, 3))[1]
    layer = KBatchNorm(epsilon=0.0, dtype="float64")

    def output_and_gradient(w):
        w = tf.convert_to_tensor(w)
        with tf.GradientTape() as tape:
            tape.watch(w)
            y = layer(tf.matmul(u, w), training=True)
            loss = tf.reduce_sum(dy * y)
        return y, tape.gradient(loss, w)

    y, gradient = output_and_gradient(w)
    scaled_y, scaled_gradient = output_and_gradient(7.0 * w)
    np.testing.assert_allclose(scaled_y, y, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(scaled_gradient, gradient / 7, rtol=1e-9, atol=1e-12)
    # Hence the gradient is orthogonal to each unit's weights.
    np.testing.assert_allclose(np.sum(gradient * w, 0), np.zeros(3), atol=1e-11)


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
@pytest.mark.parametrize(
    ("shape", "axis", "axes"), [((6, 3), -1, (0,)), ((4, 3, 2), 1, (0, 2))]
)
def test_second_derivatives(shape, axis, axes, mode):
    """As a gradient penalty needs: d/dx of sum(v * dx) by central differences."""
    x, dy = arrays(shape)
    v = arrays(shape, seed=7)[1]
    layer = randomised(shape, axis)
    gamma = layer.gamma.numpy()

    def second(x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = tf.reduce_sum(dy * layer(x, training=True))
            product = tf.reduce_sum(v * inner.gradient(loss, x))
        return outer.gradient(product, x)

    if mode != "eager":
        second = tf.function(second, jit_compile=mode == "xla")
    step = 1e-5
    expected = np.empty_like(x)
    for index in np.ndindex(shape):
        above, below = x.copy(), x.copy()
        above[index] += step
        below[index] -= step
        products = [
            np.sum(v * oracle.batch_norm_gradients(dy, at, axes, gamma, EPSILON).x)
            for at in (above, below)
        ]
        expected[index] = (products[0] - products[1]) / (2 * step)
    np.testing.assert_allclose(second(tf.convert_to_tensor(x)), expected, atol=1e-8)


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_jacobians(mode):
    """All rows at once, by TensorFlow's vectorized backward pass."""
    x, _ = arrays((5, 2))
    layer, dropout = randomised((5, 2), -1), KDropout(0.4, seed=2, dtype="float64")

    def jacobians(x):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            y, dropped = layer(x, training=True), dropout(x, training=True)
        return tape.jacobian(y, x), tape.jacobian(dropped, x)

    if mode == "graph":
        jacobians = tf.function(jacobians)
    ours, dropped = jacobians(tf.convert_to_tensor(x))
    mask = oracle.keep_mask((5, 2), 0.4, (2, 0))
    for index in np.ndindex(5, 2):
        dy = np.zeros((5, 2))
        dy[index] = 1
        expected = oracle.batch_norm_gradients(
            dy, x, (0,), layer.gamma.numpy(), EPSILON
        )
        np.testing.assert_allclose(ours[index], expected.x, atol=1e-12)
        np.testing.assert_allclose(
            dropped[index], oracle.inverted_dropout(dy, mask, 0.4), rtol=1e-14
        )


# Shapes, reduced axes and means; 2000 is a mean of 1000 standard deviations. 4096
# features are above 100,000 elements also where the batch is unknown, and taken for 64.
FLOAT32 = {
    "few elements, large mean": ((6, 5), (0,), 2000.0),
    "many elements": ((40, 4096), (0,), 0.0),
    "many elements, large mean": ((40, 4096), (0,), 2000.0),
    "many elements, axis 1": ((40, 2100, 2), (0, 2), 0.0),
}
CASE = pytest.mark.parametrize(
    ("shape", "axes", "location"), FLOAT32.values(), ids=FLOAT32.keys()
)
MODE = pytest.mark.parametrize("mode", ["eager", "graph", "unknown batch", "xla"])


def float32_parameters(shape, axes, location):
    """x, gamma and beta."""
    rng = np.random.default_rng(4)
    kept = [size for axis, size in enumerate(shape) if axis not in axes]
    arrays = (
        rng.normal(location, 2, shape),
        rng.uniform(0.5, 2, kept),
        rng.normal(0, 1, kept),
    )
    return [tf.constant(array, tf.float32) for array in arrays]


def in_mode(function, mode, arguments):
    """What the function gives in the mode."""
    if mode == "eager":
        return function(*arguments)
    x, *rest = (tf.TensorSpec(a.shape, a.dtype) for a in arguments)
    if mode == "unknown batch":
        x = tf.TensorSpec((None, *x.shape[1:]), x.dtype)
    compiled = tf.function(
        function, input_signature=[x, *rest], jit_compile=mode == "xla"
    )
    return compiled(*arguments)


def assert_close_in_float32(ours, expected):
    """To 5e-5 of the largest; two roundings of a mean of 1000 deviations are 1e-4."""
    for one, other in zip(ours, expected, strict=True):
        tolerance = 5e-5 * np.abs(other).max()
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


@MODE
@CASE
def test_second_derivatives_in_float32(shape, axes, location, mode):
    """Of a gradient penalty, against the functional form in float64."""

    def penalty_gradients(form):
        def second(x, gamma, beta):
            with tf.GradientTape() as outer:
                outer.watch([x, gamma, beta])
                with tf.GradientTape() as inner:
                    inner.watch(x)
                    y, _ = form.normalize_batch(x, axes, gamma, beta, EPSILON)
                    loss = tf.reduce_sum(tf.sin(y))
                penalty = tf.reduce_sum(tf.square(inner.gradient(loss, x)))
            return outer.gradient(penalty, [x, gamma, beta])

        return second

    arguments = float32_parameters(shape, axes, location)
    ours = in_mode(penalty_gradients(kernels), mode, arguments)
    exact = [tf.cast(a, tf.float64) for a in arguments]
    assert_close_in_float32(ours, penalty_gradients(functional)(*exact))


@MODE
@CASE
def test_jacobians_in_float32(shape, axes, location, mode):
    """Of three functions of the output at once, by the vectorized backward pass."""

    def jacobians(form):
        def jacobian(x, gamma, beta):
            with tf.GradientTape(persistent=True) as tape:
                tape.watch([x, gamma])
                y, _ = form.normalize_batch(x, axes, gamma, beta, EPSILON)
                values = tf.reduce_sum(tf.sin(y), axes)[:3]
            return [tape.jacobian(values, v) for v in (x, gamma)]

        return jacobian

    arguments = float32_parameters(shape, axes, location)
    ours = in_mode(jacobians(kernels), mode, arguments)
    exact = [tf.cast(a, tf.float64) for a in arguments]
    assert_close_in_float32(ours, jacobians(functional)(*exact))


@MODE
@pytest.mark.parametrize("shape", [(6, 5), (40, 4096)], ids=["few", "many"])
def test_dropout_in_float32(shape, mode):
    """The noise of few elements is stored, that of many is drawn again."""
    rng = np.random.default_rng(5)
    x, dy = (rng.normal(3, 2, shape).astype("float32") for _ in range(2))
    mask = oracle.keep_mask(shape, 0.3, (2, 0))
    for values in (x, dy):
        values[~mask] = np.inf
    layer = KDropout(0.3, seed=2)
    layer.build(shape)

    def output_and_gradient(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return y, tape.gradient(y, x, dy)

    ours = in_mode(output_and_gradient, mode, [tf.constant(x), tf.constant(dy)])
    for one, values in zip(ours, (x, dy), strict=True):
        expected = oracle.inverted_dropout(np.where(mask, values, 0), mask, 0.3)
        np.testing.assert_allclose(one, expected, rtol=3e-7)


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("frozen", [False, True])
def test_inference_of_float32_images(frozen, mode):
    """Where TensorFlow's fused kernel normalizes with given statistics."""
    shape, axes = (4, 5, 6, 3), (0, 1, 2)
    layer = KBatchNorm(epsilon=EPSILON)
    x, gamma, beta = float32_parameters(shape, axes, 1.0)
    layer.build(shape)
    statistics = np.array([[0.5, 1.0, 1.5], [2.0, 4.0, 6.0]])
    layer.set_weights([gamma, beta, *statistics])

    def loss(y):
        return tf.reduce_sum(tf.sin(y))

    def ours(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(layer(x, training=frozen))
        return tape.gradient(value, [x, *(w.value for w in layer.trainable_weights)])

    x64, *parameters = (tf.cast(v, tf.float64) for v in (x, gamma, beta))
    layer.trainable = not frozen
    with tf.GradientTape() as tape:
        tape.watch([x64, *parameters])
        y = functional.normalize_with(x64, axes, *statistics, *parameters, EPSILON)
        value = loss(y)
    expected = tape.gradient(value, [x64] if frozen else [x64, *parameters])
    assert_close_in_float32(in_mode(ours, mode, [x]), expected)


def test_the_moving_statistics_take_part_in_no_gradient():
    x, dy = arrays((6, 3))
    layer = randomised((6, 3), -1)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(dy * layer(x, training=True))
    moving = [w.value for w in layer.non_trainable_weights]
    assert tape.gradient(loss, moving) == [None, None]
