"""The loss of training, against the papers' sums in float64."""

import keras
import numpy as np
import pytest

from training.loss import TrainingLoss, accuracy, balanced

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 2, (6, 4)).astype("float32")
ROWS = RNG.dirichlet([0.3] * 4, 6).astype("float32")
WEIGHTS = [0.5, 2.0, 0.0, 1.5]


def cross_entropy(rows: np.ndarray) -> np.ndarray:
    logits = LOGITS.astype("float64")
    return -(rows * (logits - np.log(np.exp(logits).sum(1, keepdims=True)))).sum(1)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_rows_are_smoothed_and_weighted(
    smoothing: float, weights: list[float] | None
) -> None:
    expected = cross_entropy((1 - smoothing) * ROWS + smoothing / 4)
    if weights:
        expected *= ROWS @ np.array(weights)
    loss = TrainingLoss(smoothing, weights)
    np.testing.assert_allclose(loss.call(ROWS, LOGITS), expected, rtol=1e-5)
    assert float(loss(ROWS, LOGITS)) == pytest.approx(expected.mean(), rel=1e-5)


def test_classes_have_the_plain_loss_whatever_the_options() -> None:
    classes = np.array([0, 3, 2, 1, 1, 0])
    received = TrainingLoss(0.3, WEIGHTS).call(classes, LOGITS)
    np.testing.assert_allclose(received, cross_entropy(np.eye(4)[classes]), rtol=1e-5)


def test_a_row_is_right_where_its_largest_class_is() -> None:
    classes = ROWS.argmax(1)
    right = (classes == LOGITS.argmax(1)).astype("float32")
    assert 0 < right.sum() < 6
    for labels in (ROWS, classes):
        metric = keras.metrics.MeanMetricWrapper(accuracy)
        metric.update_state(labels, LOGITS)
        assert float(metric.result()) == pytest.approx(right.mean())


def test_balanced_classes_count_the_same() -> None:
    weights = np.array(balanced([30, 60, 10]))
    np.testing.assert_allclose(weights * [30, 60, 10], 100 / 3)
    assert balanced([3, 0, 1]) == [4 / 6, 0.0, 2.0]
