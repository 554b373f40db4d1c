"""What `keras.layers.BatchNormalization` 3.15 gets wrong and `KBatchNorm` does not.

Each test first shows the defect on the built-in layer, so that it tells when Keras
has mended it; the other reference is the float64 oracle or plain arithmetic.
"""

import keras
import numpy as np
import pytest
from keras import ops

from kerasnorm import KBatchNorm
from tests import oracle
from tests.kerasnorm.probes import BACKEND, HAS_RENORM

if BACKEND != "tensorflow":
    pytest.skip("The defects are seen on TensorFlow.", allow_module_level=True)

import tensorflow as tf

AVERAGES = ["exponential", "debiased", "cumulative"]


def normal(size, location, spread, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(location, spread, (size, 1)).astype("float32")


def moving_statistics(layer):
    return np.stack([layer.moving_mean.numpy(), layer.moving_variance.numpy()])


def test_a_mask_with_axis_1():
    x = np.random.default_rng(0).normal(3, 2, (4, 3, 5)).astype("float32")
    mask = np.array([[True] * (5 - i) + [False] * i for i in range(4)])
    with pytest.raises(tf.errors.InvalidArgumentError):
        keras.layers.BatchNormalization(axis=1)(x, training=True, mask=mask)
    expected = oracle.batch_norm(
        x, (0, 2), np.ones(3), np.zeros(3), 1e-3, mask[:, None, :]
    )
    y = KBatchNorm(axis=1)(x, training=True, mask=mask)
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize("moving_average", AVERAGES)
def test_a_fully_masked_batch_changes_nothing(moving_average):
    x, nothing = normal(64, 5, 2), np.zeros(64, bool)
    builtin = keras.layers.BatchNormalization(momentum=0.5)
    builtin(x, training=True)
    before = moving_statistics(builtin)
    builtin(x, training=True, mask=nothing)
    np.testing.assert_allclose(moving_statistics(builtin), before / 2, rtol=1e-6)

    ours = KBatchNorm(momentum=0.5, moving_average=moving_average)
    ours(x, training=True)
    before = [w.numpy() for w in ours.weights]
    ours(x, training=True, mask=nothing)
    np.testing.assert_array_equal([w.numpy() for w in ours.weights], before)


@pytest.mark.parametrize("moving_average", AVERAGES)
@pytest.mark.parametrize("renorm", [False, True])
def test_an_empty_batch_changes_nothing(renorm, moving_average):
    x, empty = normal(64, 5, 2), np.zeros((0, 1), "float32")
    builtin = keras.layers.BatchNormalization()
    builtin(x, training=True)
    builtin(empty, training=True)
    assert np.isnan(moving_statistics(builtin)).all()

    ours = KBatchNorm(renorm=renorm, moving_average=moving_average)
    ours(x, training=True)
    before = [w.numpy() for w in ours.weights]
    assert ours(empty, training=True).shape == (0, 1)
    np.testing.assert_array_equal([w.numpy() for w in ours.weights], before)


@pytest.mark.parametrize("nothing", ["masked", "empty"])
@pytest.mark.parametrize("moving_average", AVERAGES)
def test_nothing_valid_is_no_step_of_a_schedule_either(moving_average, nothing):
    x = normal(64, 5, 2)
    rmax = keras.optimizers.schedules.PolynomialDecay(1.0, 10, 3.0)
    layer = KBatchNorm(
        renorm=True, renorm_clipping={"rmax": rmax}, moving_average=moving_average
    )
    layer(x, training=True)
    before = {w.path: w.numpy() for w in layer.weights}
    assert layer.steps_seen.numpy() == 1
    if nothing == "masked":
        layer(x, training=True, mask=np.zeros(64, bool))
    else:
        layer(x[:0], training=True)
    for weight in layer.weights:
        np.testing.assert_array_equal(weight, before[weight.path], err_msg=weight.path)
    layer(x, training=True)
    assert layer.steps_seen.numpy() == 2


@pytest.mark.parametrize("moving_average", ["debiased", "cumulative"])
def test_moving_statistics_are_free_of_their_initial_values(moving_average):
    batches = [normal(100, 5, 3, seed) for seed in range(10)]
    builtin = keras.layers.BatchNormalization()
    ours = KBatchNorm(moving_average=moving_average)
    for batch in batches:
        builtin(batch, training=True)
        ours(batch, training=True)
    mean, variance = np.mean(batches), np.var(batches)
    moving = moving_statistics(builtin)[:, 0]
    assert moving[0] < 0.1 * mean
    assert moving[1] < 0.25 * variance
    # The momentum of 0.99 weighs the oldest of ten batches by 0.91 of the newest.
    np.testing.assert_allclose(ours.moving_mean[0], mean, rtol=0.01)
    np.testing.assert_allclose(ours.moving_variance[0], variance, rtol=0.03)


@pytest.mark.parametrize("moving_average", ["debiased", "cumulative"])
def test_batches_count_by_their_samples(moving_average):
    """Batches of 63 and of 1 in turn: the built-in layer finds half of the variance."""
    arguments = {"momentum": 0.9}
    builtin = keras.layers.BatchNormalization(**arguments)
    ours = KBatchNorm(
        moving_average=moving_average, bessel_correction=True, **arguments
    )
    for seed in range(60):
        batch = normal(63 if seed % 2 == 0 else 1, 5, 3, seed)
        builtin(batch, training=True)
        ours(batch, training=True)
    assert builtin.moving_variance[0] < 0.6 * 9
    # About 10 batches of 63 samples count, for a standard error of sqrt(2 / 630).
    np.testing.assert_allclose(ours.moving_variance[0], 9, rtol=4 * np.sqrt(2 / 630))


def test_bessels_correction():
    """Alg. 2: m / (m - 1) times the variance of the batch, a factor of 2 at m = 2."""
    x = normal(100, 5, 3).reshape(50, 2, 1)
    builtin = keras.layers.BatchNormalization(momentum=0.0)
    ours = KBatchNorm(momentum=0.0, bessel_correction=True)
    biased, corrected = [], []
    for batch in x:
        builtin(batch, training=True)
        ours(batch, training=True)
        biased.append(builtin.moving_variance[0])
        corrected.append(ours.moving_variance[0])
    np.testing.assert_allclose(biased, x.var(1).ravel(), rtol=1e-4)
    np.testing.assert_allclose(corrected, x.var(1, ddof=1).ravel(), rtol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_statistics_do_not_stall_in_half_precision(dtype):
    """Near the mean a step of 0.01 of the way is lost in the half-precision sum."""
    start = keras.initializers.Constant(2.9375)
    arguments = {"moving_mean_initializer": start, "momentum": 0.999, "dtype": dtype}
    builtin = keras.layers.BatchNormalization(**arguments)
    ours = KBatchNorm(**arguments)
    x = ops.cast(np.array([[2.0], [4.0]]), dtype)
    for _ in range(20):
        builtin(x, training=True)
        ours(x, training=True)
    assert float(ops.cast(builtin.moving_mean[0], "float32")) == 2.9375
    expected = oracle.exponential_average(2.9375, [3.0] * 20, 0.999)
    np.testing.assert_allclose(ours.moving_mean[0], expected, rtol=1e-6)


@pytest.mark.skipif(not HAS_RENORM, reason="Keras 3.14 brought renorm.")
def test_renorm_bounds_relax_by_a_schedule():
    """The paper's first steps are batch normalization: rmax 1, dmax 0."""
    clipping = {
        "rmax": keras.optimizers.schedules.PiecewiseConstantDecay([2], [1.0, 3.0]),
        "dmax": keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.0, 5.0]),
    }
    x = normal(64, 50, 7)
    builtin = keras.layers.BatchNormalization(renorm=True, renorm_clipping={})
    assert np.mean(builtin(x, training=True)) > 40  # barely normalised
    with pytest.raises(TypeError):
        keras.layers.BatchNormalization(renorm=True, renorm_clipping=clipping)

    ours = KBatchNorm(
        renorm=True,
        renorm_clipping={**clipping, "rmin": 1.0},
        renorm_momentum=1.0,
    )
    normalised = oracle.batch_norm(x, (0,), np.ones(1), np.zeros(1), 1e-3)
    for step in range(5):
        r, d = (1.0, 0.0) if step <= 2 else (3.0, 5.0)
        y = ours(x, training=True)
        np.testing.assert_allclose(y, normalised * r + d, atol=1e-4)


def test_several_axes():
    with pytest.raises(TypeError):
        keras.layers.BatchNormalization(axis=(1, 2))
    x = np.random.default_rng(0).normal(3, 2, (8, 2, 3)).astype("float32")
    y = KBatchNorm(axis=(1, 2))(x, training=True)
    np.testing.assert_allclose(np.mean(y, 0), np.zeros((2, 3)), atol=1e-5)
    np.testing.assert_allclose(np.std(y, 0), np.ones((2, 3)), rtol=1e-2)
