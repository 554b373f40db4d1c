"""Evaluate every split after training, and save the model and its pictures."""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import kerasnorm
from training.config import TrainConfig
from training.data.pipeline import SPLITS, Data
from training.report import pictures
from training.run import files

MOST_IMAGES = 10_000
"""The largest number of test images that are predicted with random masks."""


def finish(
    model: keras.Model,
    data: Data,
    config: TrainConfig,
    history: list[dict[str, float]],
    directory: Path,
) -> files.Metrics:
    """Evaluate in inference mode; write model.keras and the pictures.

    Returns:
        Loss and accuracy by split.
    """
    batch_size = config.batch_size
    model.save(directory / files.MODEL)
    scores = {
        split: model.evaluate(
            data.batches(split, batch_size), return_dict=True, verbose=0
        )
        for split in SPLITS
    }
    test = data.batches("test", batch_size)
    logits = model.predict(test, verbose=0)
    probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
    true = np.concatenate([labels for _, labels in test.as_numpy_iterator()])
    worst = pictures.worst_mistakes(true, probabilities)
    images = pick(test, worst)
    counts = pictures.confusion_matrix(true, probabilities.argmax(1), len(data.labels))
    pictures.draw_curves(history, directory / files.CURVES_PICTURE)
    pictures.draw_confusion(counts, data.labels, directory / files.CONFUSION_PICTURE)
    pictures.draw_mistakes(
        images,
        true[worst],
        probabilities[worst],
        data.labels,
        directory / files.MISTAKES_PICTURE,
    )
    if config.monte_carlo:
        path = directory / files.CERTAINTY_PICTURE
        _show_certainty(model, data, config, config.monte_carlo, path)
    return files.Metrics.model_validate(scores)


def _show_certainty(
    model: keras.Model, data: Data, config: TrainConfig, samples: int, path: Path
) -> None:
    examples = data.splits["test"].take(MOST_IMAGES).as_numpy_iterator()
    images, true = (np.stack(values) for values in zip(*examples, strict=True))
    print(f"Predicting {len(images):,} test images with {samples} masks each")
    prediction = kerasnorm.monte_carlo(
        model,
        images,
        samples=samples,
        seed=config.seed,
        batch_size=config.batch_size,
        from_logits=True,
        verbose=int(sys.stdout.isatty()),
    )
    pictures.draw_certainty(
        images,
        true,
        prediction,
        data.labels,
        path,
    )


def pick(batches: tf.data.Dataset, indices: np.ndarray) -> list[np.ndarray]:
    """Return the images of these indices, in their order.

    Reading whole batches is faster than reading single images.
    """
    found: dict[int, np.ndarray] = {}
    start = 0
    for images, _ in batches.as_numpy_iterator():
        here = indices[(indices >= start) & (indices < start + len(images))]
        found |= {int(i): images[i - start] for i in here}
        start += len(images)
    return [found[int(i)] for i in indices]
