"""The loss and the accuracy of training where labels are more than a class."""

from collections.abc import Sequence
from typing import Any

import keras


class TrainingLoss(keras.losses.Loss):
    """The cross-entropy of logits, smoothed and weighted for labels that are rows.

    Training has rows of probabilities, (batch, classes). Validation has classes,
    (batch,), and so the plain loss.

    Args:
        label_smoothing: The part of each label that is spread over all classes.
        weights: What each class counts; None for 1. A row counts by its shares.
    """

    def __init__(
        self, label_smoothing: float = 0.0, weights: Sequence[float] | None = None
    ) -> None:
        super().__init__(name="training_loss")
        self._label_smoothing = label_smoothing
        self._weights = weights

    def call(self, labels: Any, logits: Any) -> Any:
        """Return the loss of each sample."""
        if len(labels.shape) == 1:
            return keras.losses.sparse_categorical_crossentropy(
                labels, logits, from_logits=True
            )
        losses = keras.losses.categorical_crossentropy(
            labels, logits, from_logits=True, label_smoothing=self._label_smoothing
        )
        if self._weights is None:
            return losses
        weights = keras.ops.convert_to_tensor(self._weights, losses.dtype)
        return losses * keras.ops.matmul(labels, weights)


def accuracy(labels: Any, logits: Any) -> Any:
    """Return 1 for each sample whose likeliest class is right, or else 0.

    Of a row of probabilities the largest is right.
    """
    classes = labels if len(labels.shape) == 1 else keras.ops.argmax(labels, axis=-1)
    return keras.metrics.sparse_categorical_accuracy(classes, logits)


def balanced(counts: Sequence[int]) -> list[float]:
    """Return weights by which every class counts the same, 1 on average.

    Args:
        counts: The number of images of each class. One without images gets 0.
    """
    present = [count for count in counts if count]
    return [sum(counts) / (len(present) * n) if n else 0.0 for n in counts]
