"""The averages that the moving statistics follow, without a layer."""

import keras
import numpy as np
import pytest

from kerasnorm.layers._moving import (
    MOVING_AVERAGES,
    Cumulative,
    Debiased,
    Exponential,
    SquaredStddev,
)
from tests import oracle

pytestmark = pytest.mark.any_backend

MOMENTUM = 0.75
EPSILON = 0.5
AVERAGE = pytest.mark.parametrize("average", MOVING_AVERAGES.values())
BATCHES = np.array([[3.0, 1.0], [5.0, 2.0], [-1.0, 4.0]])
SAMPLES = np.array([[4.0, 2.0], [1.0, 0.0], [7.0, 3.0]])


def variable(values):
    return keras.Variable(np.array(values), dtype="float32", trainable=False)


def moving(average):
    """Make an average with two indices, which has seen 8 samples."""
    weight = variable([8.0, 8.0]) if average.is_weighted else None
    return average(variable([2.0, 6.0]), weight, MOMENTUM)


def tensor(values):
    return keras.ops.convert_to_tensor(values, "float32")


def numpy(of):
    return keras.ops.convert_to_numpy(of.value).copy()


def expected(average, index):
    """Return the average at an index: of the start and of the batches with samples."""
    start, batches = [2.0, 6.0][index], BATCHES[:, index]
    samples = SAMPLES[:, index]
    batches, samples = batches[samples > 0], samples[samples > 0]
    if average is Exponential:
        return oracle.exponential_average(start, batches, MOMENTUM)
    decay = {Debiased: MOMENTUM, Cumulative: 1.0}[average]
    share = {Debiased: 1 - MOMENTUM, Cumulative: 1.0}[average]
    total, weight = 8.0 * start, 8.0
    for batch, count in zip(batches, samples, strict=True):
        total = decay * total + share * count * batch
        weight = decay * weight + share * count
    return total / weight


@AVERAGE
def test_follow_takes_in_batches_that_have_samples(average):
    statistic = moving(average)
    for batch, samples in zip(BATCHES, SAMPLES, strict=True):
        statistic.follow(tensor(batch), tensor(samples))
    for index in range(2):
        value = numpy(statistic.value)[index]
        np.testing.assert_allclose(value, expected(average, index), rtol=1e-6)


@AVERAGE
def test_restart_leaves_what_the_batch_alone_leaves(average):
    statistic = moving(average)
    batch, samples = tensor([5, 7]), tensor([1, 0])
    statistic.restart(batch, samples)
    assert numpy(statistic.value).tolist() == [5.0, 6.0]
    if average.is_weighted:
        alone = average(variable([0.0, 0.0]), variable([0.0, 0.0]), MOMENTUM)
        alone.follow(batch, samples)
        assert numpy(alone.value)[0] == 5.0
        assert numpy(statistic.weight).tolist() == [numpy(alone.weight)[0], 8.0]


@AVERAGE
def test_the_variance_of_renorm_is_that_of_the_average_stddev(average):
    stddev = moving(average)
    statistic = SquaredStddev(variable([1.0, 1.0]), stddev, EPSILON)
    batch, samples = tensor([4, 4]), tensor([1, 0])
    statistic.follow(batch, samples)
    first, second = numpy(stddev.value)
    assert 2.0 < first < np.sqrt(4 + EPSILON)
    assert second == 6.0
    np.testing.assert_allclose(
        numpy(statistic.value), [first**2 - EPSILON, 1.0], rtol=1e-6
    )
    statistic.restart(batch, samples)
    assert numpy(statistic.value).tolist() == [4.0, 1.0]
    root = [np.sqrt(np.float32(4 + EPSILON)), 6.0]
    np.testing.assert_allclose(numpy(stddev.value), root, rtol=1e-6)
