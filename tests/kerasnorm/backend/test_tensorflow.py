"""`KBatchNorm` on inputs large enough for other kernels than those of small inputs."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kerasnorm import KBatchNorm
from tests import oracle

EPSILON = 0.01
MODES = pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
LAYOUTS = pytest.mark.parametrize(
    ("shape", "axis", "axes"),
    [
        ((32_000, 5), -1, (0,)),
        ((10, 64, 64, 4), -1, (0, 1, 2)),
        ((10, 4, 64, 64), 1, (0, 2, 3)),
        ((1500, 10, 10), (1, 2), (0,)),
    ],
)


def uneven(shape, location, dtype="float32"):
    """Inputs whose mean and scale differ from index to index of the last axis."""
    rng = np.random.default_rng(0)
    scale = np.linspace(0.5, 2, shape[-1])
    return (scale * (location + rng.standard_normal(shape))).astype(dtype)


def randomised(shape, axis, epsilon=EPSILON, **options):
    layer = KBatchNorm(axis, epsilon=epsilon, **options)
    layer.build(shape)
    rng = np.random.default_rng(1)
    layer.gamma.assign(rng.uniform(0.5, 2, layer.gamma.shape))
    layer.beta.assign(rng.normal(0, 1, layer.beta.shape))
    return layer


def value_and_gradients(layer, mode, **call):
    """A function of x and dy that gives y and the gradients of sum(dy * y)."""

    def compute(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True, **call)
            loss = tf.reduce_sum(dy * y)
        weights = [w.value for w in layer.trainable_weights]
        return y, tape.gradient(loss, [x, *weights])

    if mode == "eager":
        return compute
    return tf.function(compute, jit_compile=mode == "xla")


def check(layer, x, axes, mode, unit, **call):
    """Outputs, gradients and moving statistics against the oracle.

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


@pytest.mark.parametrize("location", [0.0, 3.0, 100.0, 1e4])
@LAYOUTS
def test_float32(shape, axis, axes, location):
    layer = randomised(shape, axis, momentum=0.0)
    check(layer, uneven(shape, location), axes, "graph", np.finfo("float32").eps)


@pytest.mark.parametrize("location", [3.0, 1e4])
@MODES
def test_modes(mode, location):
    shape = (10, 64, 64, 4)
    layer = randomised(shape, -1, momentum=0.0)
    check(layer, uneven(shape, location), (0, 1, 2), mode, np.finfo("float32").eps)


@pytest.mark.parametrize("location", [3.0, 1e4])
@LAYOUTS
def test_masked(shape, axis, axes, location):
    layer = randomised(shape, axis, momentum=0.0)
    mask = np.random.default_rng(3).random((shape[0], *[1] * (len(shape) - 1))) < 0.7
    x = uneven(shape, location)
    check(layer, x, axes, "graph", np.finfo("float32").eps, mask=mask)


@pytest.mark.parametrize("epsilon", [0.0, 1e-12, 1e-7])
@MODES
def test_tiny_epsilons_are_not_raised(mode, epsilon):
    """`tf.nn.fused_batch_norm` makes 1.001e-5 of them."""
    shape = (40_000, 5)
    layer = randomised(shape, -1, epsilon=epsilon, momentum=0.0)
    x = uneven(shape, 0.1) * np.float32(1e-3)
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
    shape = (samples, 150_000)
    layer = randomised((None, 150_000), -1, momentum=0.5, bessel_correction=True)
    x = uneven(shape, 3.0)
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


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("location", [0.0, 3.0, 30.0])
@MODES
def test_half_precision(dtype, location, mode):
    shape = (10, 64, 64, 4)
    layer = randomised(shape, -1, momentum=0.0, dtype=dtype)
    x = ops.cast(uneven(shape, location), dtype)
    exact = ops.convert_to_numpy(ops.cast(x, "float64"))
    dy = ops.cast(np.random.default_rng(2).normal(0.5, 1, shape), dtype)
    y, gradients = value_and_gradients(layer, mode)(x, dy)
    gamma, beta = layer.gamma.numpy(), layer.beta.numpy()
    unit = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]
    moments = oracle.moments(exact, (0, 1, 2))
    # One rounding of the output to half precision; the rest is float32.
    expected = oracle.batch_norm(exact, (0, 1, 2), gamma, beta, EPSILON)
    np.testing.assert_allclose(
        ops.cast(y, "float64"), expected, rtol=1.05 * unit, atol=1e-3
    )
    expected = oracle.batch_norm_gradients(
        ops.convert_to_numpy(ops.cast(dy, "float64")), exact, (0, 1, 2), gamma, EPSILON
    )
    np.testing.assert_allclose(
        ops.cast(gradients[0], "float64"), expected.x, rtol=2 * unit, atol=2e-3
    )
    np.testing.assert_allclose(layer.moving_mean, moments.mean, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(layer.moving_variance, moments.variance, rtol=1e-3)


@MODES
def test_inference_at_a_mean_of_ten_thousand(mode):
    shape = (10, 64, 64, 4)
    layer = randomised(shape, -1)
    x = uneven(shape, 1e4)
    moments = oracle.moments(x, (0, 1, 2))
    layer.moving_mean.assign(moments.mean)
    layer.moving_variance.assign(moments.variance)
    call = layer if mode == "eager" else tf.function(layer, jit_compile=mode == "xla")
    moving = (layer.moving_mean.numpy(), layer.moving_variance.numpy())
    expected = oracle.normalize(
        x, (0, 1, 2), *moving, layer.gamma.numpy(), layer.beta.numpy(), EPSILON
    )
    # Two roundings of a product of 1e4 standard deviations.
    tolerance = 2e4 * np.finfo("float32").eps * layer.gamma.numpy().max()
    np.testing.assert_allclose(call(x, training=False), expected, atol=tolerance)
