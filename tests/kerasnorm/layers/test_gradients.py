"""Gradients of the layers: the oracle's closed form, and central differences.

They cut across the layers' files.
"""

import keras
import numpy as np
import pytest

from kerasnorm import KBatchNorm, KDropout, KGaussianDropout, KSpatialDropout
from tests import oracle
from tests.kerasnorm import probes
from tests.kerasnorm.inputs import random_mask, uneven
from tests.kerasnorm.probes import BACKEND, gradients, in_mode, state

if BACKEND == "tensorflow":
    import tensorflow as tf

ON_EVERY_BACKEND = pytest.mark.any_backend
pytestmark = pytest.mark.usefixtures("float64")

EPSILON = 0.05
LAYOUTS = [
    ((6, 3), -1, (0,)),
    ((4, 3, 2), 1, (0, 2)),
    ((3, 2, 3, 2), -1, (0, 1, 2)),
    ((2, 2, 2, 3, 2), -1, (0, 1, 2, 3)),
    ((4, 2, 3), (1, 2), (0,)),
]
LAYOUT = pytest.mark.parametrize(("shape", "axis", "axes"), LAYOUTS)


def arrays(shape):
    """Inputs and an output gradient."""
    return uneven(shape), np.random.default_rng(1).normal(0.5, 1, shape)


def randomised(shape, axis, **options):
    layer = KBatchNorm(axis, epsilon=EPSILON, dtype="float64", **options)
    return probes.randomised(layer, shape)


@ON_EVERY_BACKEND
@pytest.mark.parametrize("masked", [False, True])
@LAYOUT
def test_training(shape, axis, axes, masked):
    x, dy = arrays(shape)
    mask = random_mask(shape) if masked else None
    layer = randomised(shape, axis)
    gamma = state(layer)["gamma"]
    ours = gradients(layer, x, dy, training=True, mask=mask)
    expected = oracle.batch_norm_gradients(dy, x, axes, gamma, EPSILON, mask)
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11)


@LAYOUT
def test_training_in_float32_at_a_mean_of_ten_thousand(shape, axis, axes):
    x, dy = arrays(shape)
    x, dy = (x + 1e4).astype("float32"), dy.astype("float32")
    layer = KBatchNorm(axis, epsilon=EPSILON)
    layer.build(shape)
    ours = gradients(layer, x, dy, training=True)[0]
    expected = oracle.batch_norm_gradients(
        dy, x, axes, np.ones(layer.gamma.shape), EPSILON
    )
    # An error of the mean of 1e4 * eps / 2 changes each deviation by that much,
    # relative to a standard deviation of about 1 for batches as small as these.
    np.testing.assert_allclose(ours, expected.x, atol=0.01)


@ON_EVERY_BACKEND
@pytest.mark.parametrize(
    ("shape", "axis", "axes", "masked"),
    [(*LAYOUTS[0], False), (*LAYOUTS[1], True), (*LAYOUTS[2], False)],
)
def test_batch_renormalization(shape, axis, axes, masked):
    """With no gradient through r and d, which are not 1 and 0 here."""
    x, dy = arrays(shape)
    mask = random_mask(shape) if masked else None
    clipping = {"rmin": 0.5, "rmax": 2.0, "dmax": 1.0}
    layer = randomised(shape, axis, renorm=True, renorm_clipping=clipping)
    _, mean, variance = oracle.moments(x, axes, mask)
    r, d = oracle.renorm_correction(
        mean,
        np.sqrt(variance + EPSILON),
        state(layer)["renorm_mean"],
        state(layer)["renorm_stddev"],
        **clipping,
    )
    expected = oracle.batch_norm_gradients(
        dy, x, axes, state(layer)["gamma"], EPSILON, mask, r, d
    )
    ours = gradients(layer, x, dy, training=True, mask=mask)
    # keras.ops.maximum gives float32 of float64 on PyTorch.
    tolerance = 1e-6 if BACKEND == "torch" else 1e-11
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@ON_EVERY_BACKEND
@LAYOUT
def test_inference(shape, axis, axes):
    """An affine map: dx = dy gamma / stddev, at inference and when frozen."""
    x, dy = arrays(shape)
    layer = randomised(shape, axis)
    stddev = np.sqrt(state(layer)["moving_variance"] + EPSILON)
    x_hat = (x - np.expand_dims(state(layer)["moving_mean"], axes)) / np.expand_dims(
        stddev, axes
    )
    dx = dy * np.expand_dims(state(layer)["gamma"] / stddev, axes)
    ours = gradients(layer, x, dy, training=False)
    expected = (dx, (dy * x_hat).sum(axes), dy.sum(axes))
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11)
    layer.trainable = False
    (ours,) = gradients(layer, x, dy, training=True)
    np.testing.assert_allclose(ours, dx, rtol=1e-11)


@pytest.mark.parametrize(
    ("mode", "renorm"), [("eager", True), ("graph", False), ("xla", True)]
)
def test_central_differences(renorm, mode):
    """The layer's own outputs, perturbed: no reference to its formulas.

    r and d of renorm are held where they are by clipping them to one value.
    """
    shape = (4, 2, 3)
    x, dy = arrays(shape)
    clipping = {"rmin": 1.3, "rmax": 1.3, "dmax": 0.0} if renorm else None
    layer = randomised(shape, 1, renorm=renorm, renorm_clipping=clipping)
    mask = random_mask((4, 1, 3))

    def value_and_gradients(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(dy * layer(x, training=True, mask=mask))
        return loss, tape.gradient(loss, x)

    value_and_gradients = in_mode(value_and_gradients, mode)
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


@ON_EVERY_BACKEND
@pytest.mark.parametrize(
    ("rate", "scale_at"),
    [(0.2, "training"), (0.2, "inference"), (1.0, "training")],
)
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


@ON_EVERY_BACKEND
def test_spatial_dropout():
    x, dy = arrays((6, 5, 4))
    mask = np.broadcast_to(oracle.keep_mask((6, 1, 4), 0.3, (2, 0)), x.shape)
    layer = KSpatialDropout(0.3, seed=2, dtype="float64")
    (ours,) = gradients(layer, x, dy, training=True)
    np.testing.assert_allclose(ours, oracle.inverted_dropout(dy, mask, 0.3), rtol=1e-14)


@ON_EVERY_BACKEND
def test_gaussian_dropout():
    x, dy = arrays((6, 5, 4))
    layer = KGaussianDropout(0.3, seed=2, dtype="float64")
    (ours,) = gradients(layer, x, dy, training=True)
    noise = oracle.gaussian_noise(x.shape, 0.3, (2, 0))
    np.testing.assert_allclose(ours, dy * noise, atol=1e-4 * np.abs(dy).max())


@ON_EVERY_BACKEND
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


@pytest.mark.parametrize(
    ("shape", "axis", "axes", "mode"),
    [
        (*LAYOUTS[0], "eager"),
        (*LAYOUTS[0], "xla"),
        (*LAYOUTS[1], "graph"),
    ],
)
def test_second_derivatives(shape, axis, axes, mode):
    """As a gradient penalty needs: d/dx of sum(v * dx) by central differences."""
    x, dy = arrays(shape)
    v = np.random.default_rng(7).normal(0.5, 1, shape)
    layer = randomised(shape, axis)
    gamma = state(layer)["gamma"]

    def second(x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = tf.reduce_sum(dy * layer(x, training=True))
            product = tf.reduce_sum(v * inner.gradient(loss, x))
        return outer.gradient(product, x)

    second = in_mode(second, mode)
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


@pytest.mark.parametrize(
    "normalization",
    [
        KBatchNorm,
        pytest.param(
            keras.layers.BatchNormalization,
            marks=pytest.mark.xfail(
                strict=True,
                reason="tf.nn.moments stops the gradient of the mean in the variance.",
            ),
        ),
    ],
)
def test_gradient_penalty(normalization):
    """Gulrajani et al. 2017, eq. 3: the critic's kernel against finite differences."""
    random = np.random.default_rng(3)
    kernel, direction = random.normal(0, 0.5, (2, 8, 6))
    images = tf.constant(random.normal(size=(16, 8)))
    normalize = normalization(dtype="float64")

    def penalty(kernel):
        with tf.GradientTape() as tape:
            tape.watch(images)
            hidden = normalize(tf.tanh(images @ kernel), training=True)
            score = tf.reduce_sum(tf.sin(hidden))
        length = tf.norm(tape.gradient(score, images), axis=1)
        return tf.reduce_mean(tf.square(length - 1))

    with tf.GradientTape() as tape:
        variable = tf.Variable(kernel)
        loss = penalty(variable)
    slope = np.sum(tape.gradient(loss, variable) * direction)
    step = 1e-5 * direction
    expected = (penalty(kernel + step) - penalty(kernel - step)) / 2e-5
    np.testing.assert_allclose(slope, expected, rtol=1e-5)


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

    ours, dropped = in_mode(jacobians, mode)(tf.convert_to_tensor(x))
    mask = oracle.keep_mask((5, 2), 0.4, (2, 0))
    for index in np.ndindex(5, 2):
        dy = np.zeros((5, 2))
        dy[index] = 1
        expected = oracle.batch_norm_gradients(
            dy, x, (0,), state(layer)["gamma"], EPSILON
        )
        np.testing.assert_allclose(ours[index], expected.x, atol=1e-12)
        np.testing.assert_allclose(
            dropped[index], oracle.inverted_dropout(dy, mask, 0.4), rtol=1e-14
        )


def test_the_moving_statistics_take_part_in_no_gradient():
    x, dy = arrays((6, 3))
    layer = randomised((6, 3), -1)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(dy * layer(x, training=True))
    moving = [w.value for w in layer.non_trainable_weights]
    assert tape.gradient(loss, moving) == [None, None]
