"""Evaluate every split after training, save the model and draw its pictures."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

import kerasnorm
from training.config import TrainConfig
from training.data.pipeline import SPLITS, Data
from training.report import pictures
from training.report.measures import (
    by_class,
    calibration,
    confusion_matrix,
    top_accuracy,
)
from training.run import files
from training.run.atomic import sync

MOST_IMAGES = 10_000
"""The largest number of test images that are predicted with random masks."""

_BYTES_AT_A_TIME = 2**28  # of these images


def finish(
    model: keras.Model, data: Data, config: TrainConfig, directory: Path
) -> files.Metrics:
    """Write model.keras and evaluate in inference mode.

    Returns:
        Loss and accuracy by split.
    """
    model.save(directory / files.MODEL)
    sync(directory / files.MODEL)
    scores = {
        split: model.evaluate(
            data.batches(split, config.batch_size), return_dict=True, verbose=0
        )
        for split in SPLITS
    }
    return files.Metrics.model_validate(scores)


class Predictions(NamedTuple):
    """What the model says of the test images: NumPy arrays, in their order."""

    true: np.ndarray
    probabilities: np.ndarray

    def confusion(self) -> np.ndarray:
        """Return counts by true class (row) and predicted class (column)."""
        size = self.probabilities.shape[1]
        return confusion_matrix(self.true, self.probabilities.argmax(1), size)


def predict_test(model: keras.Model, data: Data, config: TrainConfig) -> Predictions:
    """Predict the test images in inference mode."""
    test = data.batches("test", config.batch_size)
    logits = model.predict(test, verbose=0)
    true = np.concatenate([labels for _, labels in test.as_numpy_iterator()])
    return Predictions(true, keras.ops.convert_to_numpy(keras.ops.softmax(logits)))


def measure(predictions: Predictions, labels: Sequence[str]) -> files.Measures:
    """Return how good the predictions are; `labels` are the names of the classes."""
    counts = predictions.confusion()
    of_class = by_class(counts)
    rows = zip(labels, *of_class, counts.sum(axis=1), strict=True)
    return files.Measures(
        top_5_accuracy=top_accuracy(*predictions, k=5),
        calibration_error=calibration(*predictions).error,
        classes=[
            files.ClassMeasures(
                name=name, precision=precision, recall=recall, f1=f1, images=images
            )
            for name, precision, recall, f1, images in rows
        ],
    )


def draw(
    model: keras.Model,
    data: Data,
    config: TrainConfig,
    history: list[dict[str, float]],
    predictions: Predictions,
    directory: Path,
) -> None:
    """Draw the pictures of a run. Few images are in memory at a time."""
    pictures.draw_curves(history, directory / files.CURVES_PICTURE)
    true, probabilities = predictions
    test = data.batches("test", config.batch_size)
    worst = pictures.worst_mistakes(true, probabilities)
    counts = predictions.confusion()
    pictures.draw_confusion(counts, data.labels, directory / files.CONFUSION_PICTURE)
    pictures.draw_reliability(
        calibration(true, probabilities), directory / files.RELIABILITY_PICTURE
    )
    pictures.draw_mistakes(
        pick(test, worst),
        true[worst],
        probabilities[worst],
        data.labels,
        directory / files.MISTAKES_PICTURE,
    )
    if config.monte_carlo:
        path = directory / files.CERTAINTY_PICTURE
        _draw_certainty(model, data, config, config.monte_carlo, path)


def _draw_certainty(
    model: keras.Model, data: Data, config: TrainConfig, samples: int, path: Path
) -> None:
    number = min(MOST_IMAGES, data.sizes["test"])
    print(f"Predicting {number:,} test images with {samples} masks each")
    parts = data.splits["test"].take(number).batch(_at_a_time(data, config))
    labels, means, entropies = [], [], []
    for index, (images, true) in enumerate(parts.as_numpy_iterator()):
        prediction = kerasnorm.monte_carlo(
            model,
            images,
            samples=samples,
            seed=config.seed + index,
            batch_size=config.batch_size,
            from_logits=True,
            verbose=int(sys.stdout.isatty()),
        )
        assert prediction.predictive_entropy is not None  # probabilities have one
        labels.append(true)
        means.append(prediction.mean)
        entropies.append(prediction.predictive_entropy)
    entropy = np.concatenate(entropies)
    ends = np.concatenate(pictures.most_and_least_certain(entropy))
    images = dict(zip(ends.tolist(), pick(parts, ends), strict=True))
    pictures.draw_certainty(
        images,
        np.concatenate(labels),
        np.concatenate(means),
        entropy,
        data.labels,
        path,
    )


def _at_a_time(data: Data, config: TrainConfig) -> int:
    """Return how many images are predicted by one call, in whole batches."""
    batches = _BYTES_AT_A_TIME // (data.bytes_of_an_image * config.batch_size)
    return config.batch_size * max(1, batches)


def pick(batches: tf.data.Dataset, indices: np.ndarray) -> list[np.ndarray]:
    """Return the images of these indices, in their order.

    Reading whole batches is faster than reading single images.
    """
    found: dict[int, np.ndarray] = {}
    start = 0
    for images, _ in batches.as_numpy_iterator():
        here = indices[(indices >= start) & (indices < start + len(images))]
        found |= {int(i): images[i - start].copy() for i in here}
        start += len(images)
    return [found[int(i)] for i in indices]
