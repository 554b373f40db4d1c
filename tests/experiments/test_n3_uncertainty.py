"""N3: what it measures, and what just meets its criterion or just does not."""

import numpy as np
import pytest

from experiments import n3_uncertainty as n3
from experiments.data import Split


def test_the_calibration_error_of_two_bins():
    """0.75 sure and half right; 0.95 sure and all right; weighted 4 to 2."""
    sure = np.array([0.75] * 4 + [0.95] * 2)
    probabilities = np.stack([sure, 1 - sure], axis=1)
    labels = np.array([0, 0, 1, 1, 0, 0])
    expected = 100 * (4 * 0.25 + 2 * 0.05) / 6
    assert n3.calibration_error(probabilities, labels) == pytest.approx(expected)


def test_auroc_counts_pairs_and_half_of_ties():
    known, foreign = np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0])
    assert n3.auroc(known, foreign) == pytest.approx((1 + 0.5 + 0 + 3) / 6)


def test_the_temperature_of_logits_that_are_too_large_is_their_factor():
    random = np.random.default_rng(0)
    logits = random.normal(size=(20_000, 3))
    odds = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (random.random((20_000, 1)) > odds.cumsum(1)).sum(1).clip(0, 2)
    assert n3.best_temperature(5 * logits, labels) == pytest.approx(5, rel=0.05)


def test_judge_takes_the_mean_of_the_probabilities():
    test = Split(np.zeros((1, 28, 28, 1), "uint8"), np.array([0]))
    known = np.array([[[0.9, 0.1]], [[0.3, 0.7]]])
    foreign = np.array([[[0.99, 0.01]], [[0.01, 0.99]]])
    found = n3.judge("arm", known, foreign, test)
    assert found["arm, accuracy"] == 100
    assert found["arm, NLL"] == pytest.approx(-np.log(0.6))
    assert found["arm, AUROC"] == 1
    assert found["arm, AUROC by mutual information"] == 1
    assert "arm, AUROC by mutual information" not in n3.judge(
        "arm", known[:1], foreign[:1], test
    )


def test_criterion_of_n3():
    config = n3.Config()

    def holds(nll=0.39, auroc=0.91, one=None):
        what = (*n3.MEASURES, "AUROC by mutual information")
        row = {f"{arm}, {w}": 0.9 for arm in n3.arms(config) for w in what}
        row |= {"dropout off, NLL": 0.4, "50 masks, NLL": nll}
        row |= {"dropout off, AUROC": 0.9, "50 masks, AUROC": auroc}
        measured = {k: [dict(row) for _ in config.seeds] for k in ("plain", "dropout")}
        measured["dropout"][2] |= one or {}
        return n3.analyse(measured, config).holds

    assert holds()
    assert not holds(one={"50 masks, NLL": 0.41})
    assert not holds(one={"50 masks, AUROC": 0.89})
