"""Finite inputs whose square is not: batch normalization saturates, without NaN."""

import numpy as np
import pytest

from kerasnorm import KBatchNorm
from tests import oracle
from tests.kerasnorm import probes
from tests.kerasnorm.inputs import random_mask
from tests.kerasnorm.probes import BACKEND, exact, gradients, state

pytestmark = pytest.mark.any_backend

SHAPE = (40, 4)
OPTIONS = [
    {},
    {"renorm": True},
    {"moving_average": "debiased", "bessel_correction": True},
    {"moving_average": "cumulative", "momentum": 0.0},
    {"virtual_batch_size": 7},
    {"renorm": True, "virtual_batch_size": 7},
]


def huge(shape, size, dtype="float32"):
    x = size * np.random.default_rng(0).uniform(-1, 1, shape)
    return x.astype(dtype)


def gradients_in_training(layer, x, **call):
    dy = np.random.default_rng(1).normal(0.5, 1, x.shape).astype(x.dtype)
    return gradients(layer, x, dy, training=True, **call)


def check_no_nan(layer, x, **call):
    """Look at the outputs, gradients and statistics, and at a usual batch after it."""
    outputs = layer(x, training=True, **call)
    assert not np.isnan(exact(outputs)).any()
    found = gradients_in_training(layer, x, **call)
    assert not any(np.isnan(exact(f)).any() for f in found)
    assert not any(np.isnan(v).any() for v in state(layer).values())
    usual = np.clip(x, -1, 1)
    for training in (True, False):
        assert not np.isnan(exact(layer(usual, training=training))).any()
        assert not np.isnan(exact(layer(x, training=training))).any()
    return exact(outputs)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
def test_a_variance_beyond_float32(options, masked):
    layer = probes.randomised(KBatchNorm(**options), SHAPE)
    x = huge(SHAPE, 1e30)
    call = {"mask": random_mask((40,))} if masked else {}
    y = check_no_nan(layer, x, **call)
    if "renorm" not in options:
        beta = np.broadcast_to(state(layer)["beta"], SHAPE)
        np.testing.assert_allclose(y, beta, rtol=1e-6)


@pytest.mark.parametrize("samples", [40, 200_000])
def test_one_feature_beyond_float32_and_one_far_from_0(samples):
    """What corrects the mean of the one must not make NaN of the other."""
    x = np.random.default_rng(2).standard_normal((samples, 2), dtype="float32")
    x = x * np.float32([1e30, 1]) + np.float32([0, 100])
    layer = KBatchNorm(momentum=0.0)
    y = exact(layer(x, training=True))
    assert not np.isnan(y).any()
    assert not any(np.isnan(v).any() for v in state(layer).values())
    expected = oracle.batch_norm(x[:, 1:], (0,), [1.0], [0.0], layer.epsilon)
    np.testing.assert_allclose(y[:, 1:], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sign", ["one", "both"])
def test_the_largest_float32(sign):
    x = np.full(SHAPE, np.finfo("float32").max)
    if sign == "both":
        x[::3] *= -1
    check_no_nan(KBatchNorm(), x)


@pytest.mark.parametrize("options", OPTIONS)
def test_gradients_whose_terms_add_up_to_infinity(options):
    """Those of an infinite variance, which moves nothing, are 0."""
    layer = probes.randomised(KBatchNorm(**options), SHAPE)
    dx, *_ = gradients_in_training(layer, huge(SHAPE, 1e38))
    np.testing.assert_array_equal(exact(dx), 0)


@pytest.mark.skipif(BACKEND == "jax", reason="JAX has no float64 by default.")
def test_float16_and_float64():
    y = check_no_nan(KBatchNorm(dtype="float16"), huge(SHAPE, 6e4, "float16"))
    assert abs(y).max() > 1
    check_no_nan(KBatchNorm(dtype="float64"), huge(SHAPE, 1e300, "float64"))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="The modes are TensorFlow's.")
@pytest.mark.parametrize(
    ("mode", "shape"),
    [("graph", SHAPE), ("xla", SHAPE), ("graph", (5000, 3)), ("xla", (5000, 3))],
)
def test_in_the_modes_of_tensorflow(mode, shape):
    layer = probes.randomised(KBatchNorm(), shape)
    call = probes.in_mode(lambda x: layer(x, training=True), mode)
    for x in (huge(shape, 1e30), np.full(shape, np.finfo("float32").max)):
        beta = np.broadcast_to(state(layer)["beta"], shape)
        np.testing.assert_allclose(call(x), beta, rtol=1e-6)
        assert not any(np.isnan(v).any() for v in state(layer).values())
