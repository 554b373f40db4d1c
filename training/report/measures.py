"""How good predictions are: by class, by rank, and whether their probabilities hold."""

from typing import NamedTuple

import numpy as np

BINS = 15
"""Bins of equal width of the confidence: Guo et al. 2017."""


class ByClass(NamedTuple):
    """Measures of each class, arrays of shape (classes,), 0 where there is nothing.

    Precision is the share of the images predicted as the class that are of it, recall
    the share of its images that are predicted so, F1 their harmonic mean.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


class Calibration(NamedTuple):
    """Confidence and accuracy in each bin of confidence, arrays of shape (BINS,).

    Both are 0 in a bin without images.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    images: np.ndarray

    @property
    def error(self) -> float:
        """Return the expected calibration error: Guo et al. 2017, equation 3."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float((self.images * gaps).sum() / self.images.sum())


def confusion_matrix(true: np.ndarray, predicted: np.ndarray, size: int) -> np.ndarray:
    """Return counts by true class (row) and predicted class (column)."""
    counts = np.zeros((size, size), dtype=np.int64)
    np.add.at(counts, (true, predicted), 1)
    return counts


def by_class(counts: np.ndarray) -> ByClass:
    """Return the measures of each class from a confusion matrix."""
    right = np.diagonal(counts)
    predicted, true = counts.sum(axis=0), counts.sum(axis=1)
    return ByClass(
        _share(right, predicted),
        _share(right, true),
        _share(2 * right, predicted + true),
    )


def top_accuracy(true: np.ndarray, probabilities: np.ndarray, k: int) -> float:
    """Return the share of images whose class is among the k likeliest.

    A class that is as likely as the true one counts as likelier.
    """
    of_true = np.take_along_axis(probabilities, true[:, None], axis=1)
    # So that NaN is not among the likeliest.
    less_likely = (probabilities < of_true).sum(axis=1)
    return float((less_likely >= probabilities.shape[1] - k).mean())


def calibration(true: np.ndarray, probabilities: np.ndarray) -> Calibration:
    """Compare the confidence of the predictions with how often they are right."""
    confidence = probabilities.max(axis=1).astype("float64")
    is_right = probabilities.argmax(axis=1) == true
    # A bin has its upper end: (0, 1/15], (1/15, 2/15], ...
    bins = np.ceil(np.nan_to_num(confidence) * BINS).astype(int) - 1
    bins = bins.clip(0, BINS - 1)
    images = np.bincount(bins, minlength=BINS)
    return Calibration(
        confidence=_share(np.bincount(bins, confidence, BINS), images),
        accuracy=_share(np.bincount(bins, is_right, BINS), images),
        images=images,
    )


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
