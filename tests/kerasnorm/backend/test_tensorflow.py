"""The functions of `kerasnorm.backend.tensorflow`, in every mode of TensorFlow.

What is many elements for the library is few here: the same code runs sooner.
"""

import gc
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest
from keras import ops

from kerasnorm import KBatchNorm, KDropout, functional
from tests import oracle
from tests.kerasnorm import probes
from tests.kerasnorm.inputs import random_mask, uneven
from tests.kerasnorm.probes import BACKEND, exact, in_mode

if BACKEND != "tensorflow":
    pytest.skip("It is TensorFlow's.", allow_module_level=True)

import tensorflow as tf

from kerasnorm.backend import tensorflow as kernels
from kerasnorm.backend.tensorflow import (
    blocks,
    chunks,
    composed,
    many,
    noise,
    normalization,
)

EPSILON = 0.01
MODES = pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
LAYOUTS = pytest.mark.parametrize(
    ("shape", "axis", "axes"),
    [
        ((320, 5), -1, (0,)),
        ((10, 8, 8, 4), -1, (0, 1, 2)),
        ((10, 4, 8, 8), 1, (0, 2, 3)),
        ((150, 5, 4), (1, 2), (0,)),
    ],
)


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch):
    for module in (normalization, noise):
        monkeypatch.setattr(module, "SMALL", 1000)
    # Chunks of 4 rows are traced and compiled in a third of the time.
    monkeypatch.setattr(chunks, "CHUNK", 4)
    monkeypatch.setattr(composed, "LANES", 4)
    monkeypatch.setattr(blocks, "ROWS", 8)
    monkeypatch.setattr(blocks, "SLICE", 100)


def randomised(shape, axis, epsilon=EPSILON, **options):
    return probes.randomised(KBatchNorm(axis, epsilon=epsilon, **options), shape)


def value_and_gradients(layer, mode, **call):
    """Return a function of x and dy: it gives y and the gradients of sum(dy * y)."""

    def compute(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True, **call)
            loss = tf.reduce_sum(dy * y)
        weights = [w.value for w in layer.trainable_weights]
        return y, tape.gradient(loss, [x, *weights])

    return compute if mode is None else in_mode(compute, mode)


def check(layer, x, axes, mode, unit, **call):
    """Compare outputs, gradients and moving statistics with the oracle.

    In standard deviations, an output errs by two roundings of its mean, and by those
    of the sums of m samples, which grow as the root of m. So does a gradient, and the
    mean over the samples of the terms of a parameter's gradient.
    """
    dy = np.random.default_rng(2).normal(0.5, 1, x.shape).astype("float32")
    compute = value_and_gradients(layer, mode, **call)
    y, gradients = compute(ops.convert_to_tensor(x), ops.convert_to_tensor(dy))
    gamma, beta = layer.gamma.numpy(), layer.beta.numpy()
    mask = call.get("mask")
    moments = oracle.moments(x, axes, mask)
    ratio = np.max(np.abs(moments.mean) / np.sqrt(moments.variance + layer.epsilon))
    m = moments.count.max()
    tolerance = unit * (2 * ratio + 10 * np.sqrt(m)) * gamma.max()

    expected = oracle.batch_norm(x, axes, gamma, beta, layer.epsilon, mask)
    np.testing.assert_allclose(y, expected, rtol=unit, atol=tolerance)
    expected = oracle.batch_norm_gradients(dy, x, axes, gamma, layer.epsilon, mask)
    slope = (gamma / np.sqrt(moments.variance + layer.epsilon)).max()
    np.testing.assert_allclose(
        gradients[0], expected.x, rtol=1e-3, atol=tolerance * slope
    )
    for ours, other in zip(gradients[1:], expected[1:], strict=True):
        np.testing.assert_allclose(ours / m, other / m, rtol=1e-4, atol=tolerance)
    np.testing.assert_allclose(layer.moving_mean, moments.mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, moments.variance, rtol=1e-3)


@pytest.mark.parametrize(
    ("location", "fused"),
    [(0.0, True), (100.0, True), (1e4, True), (0.0, False), (1e4, False)],
)
@LAYOUTS
def test_float32(shape, axis, axes, location, fused, monkeypatch):
    """By the fused kernel, where TensorFlow has a fast one, and by blocks."""
    if not fused:
        monkeypatch.setattr(many, "is_fast", lambda: False)
    layer = randomised(shape, axis, momentum=0.0)
    x = uneven(shape, location=location, dtype="float32")
    check(layer, x, axes, "graph", np.finfo("float32").eps)


@pytest.mark.parametrize(
    ("mode", "location"), [("eager", 0.0), ("eager", 1e4), ("xla", 0.0), ("xla", 1e4)]
)
def test_float32_in_other_modes(mode, location):
    shape = (10, 8, 8, 4)
    layer = randomised(shape, -1, momentum=0.0)
    x = uneven(shape, location=location, dtype="float32")
    check(layer, x, (0, 1, 2), mode, np.finfo("float32").eps)


@pytest.mark.parametrize(
    ("shape", "axis", "location", "mode", "options"),
    [
        ((2_000_000, 1), -1, 0.0, "graph", {}),
        ((2_000_000, 1), -1, 1e4, "unknown batch", {}),
        ((250_000, 3), -1, 3.0, "eager", {}),
        ((8, 3, 224, 224), 1, 3.0, "xla", {}),
        ((400_000, 3), -1, 3.0, "eager", {"masked": True}),
        ((400_000, 2), -1, 1e4, "eager", {"virtual_batch_size": 150_000}),
        pytest.param((100_000_000, 1), -1, 3.0, "graph", {}, marks=pytest.mark.slow),
    ],
)
def test_many_samples(shape, axis, location, mode, options, monkeypatch):
    """Outputs, variances and gradients are right to 1e-5, however many rows there are.

    Added one after another in float32, 2 million squares are off by 3e-3.
    """
    monkeypatch.undo()
    rng = np.random.default_rng(3)
    axes = tuple(a for a in range(len(shape)) if a != axis % len(shape))
    masked = options.get("masked", False)
    mask = rng.random((*shape[:-1], 1)) < 0.7 if masked else None
    ghost = {k: v for k, v in options.items() if k != "masked"}
    layer = randomised(shape, axis, momentum=0.0, **ghost)
    x = rng.standard_normal(shape, dtype="float32") + np.float32(location)
    dy = rng.standard_normal(shape, dtype="float32") + np.float32(0.5)
    dy += np.float32(0.5) * (x - np.float32(location))
    compute = value_and_gradients(layer, None, mask=mask)
    arguments = [tf.constant(x), tf.constant(dy)]
    y, gradients = run_in_mode(compute, mode, arguments)
    size = options.get("virtual_batch_size", shape[0])
    gamma, beta = layer.gamma.numpy(), layer.beta.numpy()
    for start in range(0, shape[0], size):
        part = slice(start, start + size)
        expected = oracle.batch_norm(x[part], axes, gamma, beta, EPSILON, mask)
        np.testing.assert_allclose(y[part], expected, rtol=0, atol=1e-5)
    mean, variance = oracle.moments(x, axes, mask)[1:]
    np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-5)
    if size == shape[0]:
        dy = dy.astype("float64")
        expected = oracle.batch_norm_gradients(dy, x, axes, gamma, EPSILON, mask)
        for ours, other in zip(gradients, expected, strict=True):
            tolerance = 1e-5 * np.abs(other).max()
            np.testing.assert_allclose(ours, other, rtol=0, atol=tolerance)


WITHOUT_ONEDNN = """
import numpy as np
import tensorflow as tf
from kerasnorm.backend import tensorflow as kernels
from kerasnorm.backend.tensorflow import fused
from tests import oracle

assert not fused.is_fast()
for shape, axes, sizes in (
    ((2048,), (0,), (1, 5, 9)),
    ((16, 16, 3), (0, 1, 2), (1,)),
):
    signature = [tf.TensorSpec((None, *shape))]
    normalize = tf.function(
        lambda x: kernels.normalize_batch(x, axes, None, None, 0.01)[0], signature
    )
    for size in sizes:
        x = np.random.default_rng(1).normal(3, 2, (size, *shape)).astype("float32")
        ones = np.ones(shape[-1])
        expected = oracle.batch_norm(x, axes, ones, 0 * ones, 0.01)
        np.testing.assert_allclose(normalize(x), expected, rtol=0, atol=1e-5)
"""


def test_slices_without_a_whole_block_where_there_is_no_onednn():
    """TensorFlow's own kernels, of which one leaves an empty sum as the memory was."""
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0"}
    command = [sys.executable, "-c", WITHOUT_ONEDNN]
    subprocess.run(command, env=environment, check=True)


@LAYOUTS
def test_masked(shape, axis, axes):
    layer = randomised(shape, axis, momentum=0.0)
    mask = random_mask((shape[0], *[1] * (len(shape) - 1)))
    x = uneven(shape, location=1e4, dtype="float32")
    check(layer, x, axes, "graph", np.finfo("float32").eps, mask=mask)


@pytest.mark.parametrize(
    ("epsilon", "mode"), [(0.0, "graph"), (1e-12, "eager"), (1e-7, "xla")]
)
def test_tiny_epsilons_are_not_raised(epsilon, mode):
    """`tf.nn.fused_batch_norm` makes 1.001e-5 of them."""
    shape = (400, 5)
    layer = randomised(shape, -1, epsilon=epsilon, momentum=0.0)
    x = 1e-3 * uneven(shape, dtype="float32")
    dy = np.ones_like(x)
    y, _ = value_and_gradients(layer, mode)(ops.convert_to_tensor(x), dy)
    expected = oracle.batch_norm(
        x, (0,), layer.gamma.numpy(), layer.beta.numpy(), epsilon
    )
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("samples", [0, 1, 2])
@MODES
def test_few_samples_of_many_features(samples, mode):
    """A kernel that divides by m - 1, as the fused one, has nothing to divide by."""
    shape = (samples, 1500)
    layer = randomised((None, 1500), -1, momentum=0.5, bessel_correction=True)
    x = uneven(shape, dtype="float32")
    before = layer.moving_variance.numpy()
    dy = np.ones_like(x)
    y, gradients = value_and_gradients(layer, mode)(ops.convert_to_tensor(x), dy)
    expected = oracle.batch_norm(
        x, (0,), layer.gamma.numpy(), layer.beta.numpy(), EPSILON
    )
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gradients[0], np.zeros(shape), atol=1e-3)
    after = layer.moving_variance.numpy()
    if samples < 2:
        np.testing.assert_array_equal(after, before)
    else:
        expected = before / 2 + x.var(0, ddof=1, dtype="float64") / 2
        np.testing.assert_allclose(after, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("dtype", "location", "mode"),
    [
        ("float16", 0.0, "xla"),
        ("float16", 100.0, "graph"),
        ("bfloat16", 0.0, "eager"),
        ("bfloat16", 100.0, "xla"),
    ],
)
def test_half_precision(dtype, location, mode):
    shape = (10, 8, 8, 4)
    layer = randomised(shape, -1, momentum=0.0, dtype=dtype)
    x = ops.cast(uneven(shape, location=location), dtype)
    dy = ops.cast(np.random.default_rng(2).normal(0.5, 1, shape), dtype)
    y, gradients = value_and_gradients(layer, mode)(x, dy)
    gamma, beta = layer.gamma.numpy(), layer.beta.numpy()
    unit = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]
    moments = oracle.moments(exact(x), (0, 1, 2))
    # One rounding of the output to half precision; the rest is float32.
    expected = oracle.batch_norm(exact(x), (0, 1, 2), gamma, beta, EPSILON)
    np.testing.assert_allclose(exact(y), expected, rtol=1.05 * unit, atol=1e-3)
    expected = oracle.batch_norm_gradients(
        exact(dy), exact(x), (0, 1, 2), gamma, EPSILON
    )
    np.testing.assert_allclose(
        exact(gradients[0]), expected.x, rtol=2 * unit, atol=2e-3
    )
    np.testing.assert_allclose(layer.moving_mean, moments.mean, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(layer.moving_variance, moments.variance, rtol=1e-3)


@MODES
def test_inference_at_a_mean_of_ten_thousand(mode):
    shape = (10, 8, 8, 4)
    layer = randomised(shape, -1)
    x = uneven(shape, location=1e4, dtype="float32")
    moments = oracle.moments(x, (0, 1, 2))
    layer.moving_mean.assign(moments.mean)
    layer.moving_variance.assign(moments.variance)
    call = in_mode(layer, mode)
    moving = (layer.moving_mean.numpy(), layer.moving_variance.numpy())
    expected = oracle.normalize(
        x, (0, 1, 2), *moving, layer.gamma.numpy(), layer.beta.numpy(), EPSILON
    )
    # Two roundings of a product of 1e4 standard deviations.
    tolerance = 2e4 * np.finfo("float32").eps * layer.gamma.numpy().max()
    np.testing.assert_allclose(call(x, training=False), expected, atol=tolerance)


# Shapes, reduced axes and means; 2000 is a mean of 1000 standard deviations.
FEW = ((6, 5), (0,), 2000.0)
MANY = ((40, 64), (0,), 0.0)
MANY_LARGE_MEAN = ((40, 64), (0,), 2000.0)
MANY_AXIS_1 = ((40, 33, 2), (0, 2), 0.0)


def derivatives(*cases):
    return pytest.mark.parametrize(
        ("shape", "axes", "location", "mode"),
        [(*case, mode) for case, mode in cases],
    )


def float32_parameters(shape, axes, location):
    """Return x, gamma and beta."""
    rng = np.random.default_rng(4)
    kept = [size for axis, size in enumerate(shape) if axis not in axes]
    arrays = (
        rng.normal(location, 2, shape),
        rng.uniform(0.5, 2, kept),
        rng.normal(0, 1, kept),
    )
    return [tf.constant(array, tf.float32) for array in arrays]


def run_in_mode(function, mode, arguments):
    """Return what the function gives in the mode."""
    if mode != "unknown batch":
        return in_mode(function, mode)(*arguments)
    x, *rest = (tf.TensorSpec(a.shape, a.dtype) for a in arguments)
    x = tf.TensorSpec((None, *x.shape[1:]), x.dtype)
    return tf.function(function, input_signature=[x, *rest])(*arguments)


def assert_close_in_float32(ours, expected):
    """Compare to 5e-5 of the largest value.

    Two roundings of a mean of 1000 standard deviations come to 1e-4 of one.
    """
    for one, other in zip(ours, expected, strict=True):
        tolerance = 5e-5 * np.abs(other).max()
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


@derivatives(
    (FEW, "eager"),
    (FEW, "xla"),
    (MANY_LARGE_MEAN, "graph"),
    (MANY, "unknown batch"),
    (MANY_AXIS_1, "eager"),
    (MANY_LARGE_MEAN, "xla"),
)
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
    ours = run_in_mode(penalty_gradients(kernels), mode, arguments)
    exact = [tf.cast(a, tf.float64) for a in arguments]
    assert_close_in_float32(ours, penalty_gradients(functional)(*exact))


@derivatives(
    (FEW, "eager"),
    (MANY_LARGE_MEAN, "eager"),
    (MANY_AXIS_1, "graph"),
    (MANY, "xla"),
)
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
    ours = run_in_mode(jacobians(kernels), mode, arguments)
    exact = [tf.cast(a, tf.float64) for a in arguments]
    assert_close_in_float32(ours, jacobians(functional)(*exact))


@pytest.mark.parametrize(
    ("shape", "mode"),
    [
        ((6, 5), "eager"),
        ((6, 5), "graph"),
        ((40, 64), "eager"),
        ((40, 64), "graph"),
        ((40, 64), "unknown batch"),
        ((40, 64), "xla"),
    ],
)
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

    ours = run_in_mode(output_and_gradient, mode, [tf.constant(x), tf.constant(dy)])
    for one, values in zip(ours, (x, dy), strict=True):
        expected = oracle.inverted_dropout(np.where(mask, values, 0), mask, 0.3)
        np.testing.assert_allclose(one, expected, rtol=3e-7)


@pytest.mark.parametrize("size", [25, 1001])
def test_dropout_of_one_element_more_than_fills_rows(size):
    """Few elements and many: noise is drawn in rows only where they fill them."""
    assert size % noise.ROW == 1
    x = np.random.default_rng(5).normal(3, 2, size).astype("float32")
    mask = oracle.keep_mask((size,), 0.3, (2, 0))
    y = KDropout(0.3, seed=2)(x, training=True)
    np.testing.assert_allclose(y, oracle.inverted_dropout(x, mask, 0.3), rtol=3e-7)


STATISTICS = [
    ((4, 5, 6, 3), (0, 1, 2)),
    ((7, 3), (0,)),
    ((4, 3, 5), (0, 2)),
    ((4, 3, 5, 6), (0, 2, 3)),
    ((3, 2, 3, 2, 3), (0, 1, 2, 3)),
]


@pytest.mark.parametrize(
    ("shape", "axes", "mode"),
    [
        (*layout, mode)
        for layout, mode in zip(
            STATISTICS, ["eager", "graph", "xla", "eager", "graph"], strict=True
        )
    ]
    + [(*STATISTICS[0], "graph"), (*STATISTICS[0], "xla")],
)
def test_derivatives_at_inference(shape, axes, mode):
    """First and second ones, by the moving statistics too, against float64."""
    x, gamma, beta = float32_parameters(shape, axes, 1.0)
    statistics = [tf.constant(v, tf.float32) for v in ([0.5, 1, 1.5], [2.0, 4, 6])]

    def derivatives_of(form):
        def derivatives(*arguments):
            with tf.GradientTape() as outer:
                outer.watch(arguments)
                with tf.GradientTape() as inner:
                    inner.watch(arguments)
                    x, *others = arguments
                    y = form.normalize_with(x, axes, *others, EPSILON)
                    loss = tf.reduce_sum(tf.sin(y))
                first = inner.gradient(loss, arguments)
                penalty = tf.add_n([tf.reduce_sum(tf.square(g)) for g in first])
            return [*first, *outer.gradient(penalty, arguments)]

        return derivatives

    arguments = [x, *statistics, gamma, beta]
    ours = in_mode(derivatives_of(kernels), mode)(*arguments)
    exact = [tf.cast(a, tf.float64) for a in arguments]
    assert_close_in_float32(ours, derivatives_of(functional)(*exact))


@pytest.mark.parametrize("shape", [(1_000_000, 1), (4, 500, 500, 1)])
def test_gradients_of_many_samples_at_inference(shape):
    """Of gamma and beta, whose terms are added; the mean is 100 standard deviations."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal(shape, dtype="float32") + np.float32(100)
    layer = randomised(shape, -1)
    layer.moving_mean.assign([100.5])
    moving = (layer.moving_mean.numpy(), layer.moving_variance.numpy())
    dy = np.float32(1.5) + (x - np.float32(100))
    with tf.GradientTape() as tape:
        y = layer(x, training=False)
    dgamma, dbeta = tape.gradient(y, [layer.gamma.value, layer.beta.value], dy)
    x_hat = (x - np.float64(moving[0])) / np.sqrt(np.float64(moving[1]) + EPSILON)
    np.testing.assert_allclose(dgamma, [np.sum(dy * x_hat)], rtol=1e-5)
    np.testing.assert_allclose(dbeta, [np.sum(dy, dtype="float64")], rtol=1e-5)


@pytest.mark.parametrize(("frozen", "mode"), [(False, "eager"), (True, "graph")])
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
    assert_close_in_float32(run_in_mode(ours, mode, [x]), expected)


def test_functions_of_rates_that_nobody_uses_are_freed(monkeypatch):
    """A new rate for each step would else fill the memory."""
    made = weakref.WeakSet()

    class Uncompiled:
        def __init__(self, function, **_):
            self.function = function
            made.add(self)

        def __call__(self, *arguments):
            return self.function(*arguments)

    monkeypatch.setattr(tf, "function", Uncompiled)
    seed = tf.constant([1, 2], tf.uint32)
    for number in range(70):
        noise.dropout(tf.ones((8,)), 0.123 + number * 1e-5, seed)
    gc.collect()
    assert 1 <= len(made) <= 64
