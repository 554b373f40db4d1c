"""R8: what it measures, and what just meets its criterion or just does not."""

import numpy as np

from experiments import r8_monte_carlo as r8
from experiments.data import Split
from tests.experiments.measured import of


def test_the_error_of_means_is_averaged_over_the_groups():
    data = Split(np.zeros((1, 28, 28, 1), "uint8"), np.array([0]))
    right, wrong = [[0.6, 0.4]], [[0.1, 0.9]]
    draws = np.array([right, right, wrong, right])
    assert r8.group_error(draws, data, 1) == 25
    assert r8.group_error(draws, data, 2) == 50
    assert r8.group_error(draws, data, 3) == 100


def test_means_that_differ_in_their_last_digits_are_told_apart():
    data = Split(np.zeros((1, 28, 28, 1), "uint8"), np.array([1]))
    draws = np.array([[[0.5, 0.5]], [[0, 1e-8]], [[0, 1e-8]]], "float32")
    assert r8.group_error(draws, data, 3) == 0


def test_criterion_of_r8():
    def holds(one, fifty):
        errors = [[o, 0, 0, 0, 0, f, 0] for o, f in zip(one, fifty, strict=True)]
        measured = {"networks": of(errors=errors, scaled=(2.0,) * 5)}
        return r8.analyse(measured, r8.Config()).holds

    worse, close = (2.5,) * 5, (2.1, 2.0, 1.9, 2.0, 2.0)
    assert holds(worse, close)
    assert not holds((2.5, 2.5, 2.5, 2.5, 2.0), close)
    assert not holds(worse, (2.2,) * 5)
    assert not holds(worse, (2.3, 1.7, 2.3, 1.7, 2.0))  # too uncertain
