"""Measures of predictions, against counts by hand and a plain loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.report.measures import (
    BINS,
    by_class,
    calibration,
    confusion_matrix,
    top_accuracy,
)


def test_measures_by_class() -> None:
    counts = confusion_matrix(np.array([0, 1, 2, 0]), np.array([0, 0, 1, 1]), 4)
    assert counts.tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0] * 4]
    measures = by_class(counts)
    assert measures.precision.tolist() == [0.5, 0, 0, 0]
    assert measures.recall.tolist() == [0.5, 0, 0, 0]
    assert measures.f1.tolist() == [0.5, 0, 0, 0]


def test_the_true_class_among_the_likeliest() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.4, 0.4, 0.2]])
    true = np.array([1, 2, 0])
    shares = [top_accuracy(true, probabilities, k) for k in (1, 2, 3)]
    # A tie counts against the prediction.
    assert shares == pytest.approx([0, 2 / 3, 1])


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 5))
def test_calibration_bin_by_bin(seed: int, images: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(classes, 0.3), images)
    true = rng.integers(0, classes, images)
    result = calibration(true, probabilities)
    error = 0.0
    for number in range(BINS):
        inside = [
            (max(p), int(np.argmax(p) == t))
            for p, t in zip(probabilities.tolist(), true, strict=True)
            if number / BINS < max(p) <= (number + 1) / BINS
        ]
        assert result.images[number] == len(inside)
        if inside:
            confidence, right = np.mean(inside, axis=0)
            assert result.confidence[number] == pytest.approx(confidence)
            assert result.accuracy[number] == pytest.approx(right)
            error += len(inside) * abs(confidence - right)
    assert result.error == pytest.approx(error / images)


def test_a_diverged_model_is_not_good() -> None:
    true, probabilities = np.zeros(3, int), np.full((3, 9), np.nan)
    assert top_accuracy(true, probabilities, 5) == 0
    assert np.isnan(calibration(true, probabilities).error)


def test_probabilities_of_exactly_one_are_in_the_last_bin() -> None:
    result = calibration(np.array([0, 1]), np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert result.images[-1] == 2
    assert result.error == 0.5
