"""R1: what it measures, and what just meets its criterion or just does not."""

import numpy as np
import pytest

from experiments import r1_bn_is_faster as r1
from tests.experiments.measured import of


def test_drift_is_in_widths_of_the_distribution():
    medians = np.array([0.0, 2.0, 4.0])  # of standard deviation sqrt(8 / 3)
    percentiles = np.stack([medians + offset for offset in (-2, -1, 0, 1, 2)], axis=1)
    units = np.stack([percentiles, 5 + 10 * percentiles], axis=2)
    assert r1.drift(units) == pytest.approx(np.sqrt(8 / 3) / 2)


def test_drift_of_many_times_is_not_rounded():
    percentiles = np.random.default_rng(0).normal(1e4, 1, (5000, 5, 3)).cumsum(1)
    wide = r1.drift(percentiles.astype("float32").astype("float64"))
    assert r1.drift(percentiles.astype("float32")) == pytest.approx(wide, rel=1e-12)


def test_steps_to_the_target():
    config = r1.Config(every=100)
    assert r1.steps_to_target([0.9, 0.95, 0.94], config) == 200
    assert r1.steps_to_target([0.9, 0.9, 0.9], config) == 300


def holds_r1(steps=(400,) * 5, errors=(2.0,) * 5):
    measured = {
        "without": of(steps_to_target=(1000,) * 5, test_error=(2.0,) * 5),
        "with": of(steps_to_target=steps, test_error=errors),
        "stddev": 0.1,
        "rates": {"without": 1.0, "with": 1.0},
        "explored": [],
    }
    return r1.analyse(measured, r1.FULL).holds


def test_criterion_of_r1():
    assert holds_r1()
    assert holds_r1(steps=(100, 100, 500, 900, 900))
    assert not holds_r1(steps=(100, 100, 510, 900, 900))
    assert not holds_r1(steps=(100, 100, 100, 100, 1000))
    assert holds_r1(errors=(2.0, 2.0, 2.0, 2.2, 2.2))
    assert not holds_r1(errors=(2.0, 2.0, 2.2, 2.2, 2.2))
