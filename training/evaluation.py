"""The end of a training: every split evaluated, the model and its pictures saved."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from training import report
from training.data import SPLITS, Data


def finish(
    model: keras.Model,
    data: Data,
    batch_size: int,
    history: list[dict[str, float]],
    directory: Path,
) -> dict[str, dict[str, float]]:
    """Evaluates in inference mode; writes model.keras and the pictures.

    Returns:
        Loss and accuracy by split.
    """
    model.save(directory / "model.keras")
    metrics = {
        split: model.evaluate(
            data.batches(split, batch_size), return_dict=True, verbose=0
        )
        for split in SPLITS
    }
    test = data.batches("test", batch_size)
    logits = model.predict(test, verbose=0)
    probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
    true = np.concatenate([labels for _, labels in test.as_numpy_iterator()])
    worst = report.worst_mistakes(true, probabilities)
    images = _pick(data.splits["test"], worst)
    counts = report.confusion_matrix(true, probabilities.argmax(1), len(data.labels))
    report.draw_curves(history, directory / "curves.png")
    report.draw_confusion(counts, data.labels, directory / "confusion.png")
    report.draw_mistakes(
        images,
        true[worst],
        probabilities[worst],
        data.labels,
        directory / "mistakes.png",
    )
    return metrics


def _pick(examples: tf.data.Dataset, indices: np.ndarray) -> list[np.ndarray]:
    wanted = set(indices.tolist())
    found = {
        i: image
        for i, (image, _) in enumerate(examples.as_numpy_iterator())
        if i in wanted
    }
    return [found[i] for i in indices.tolist()]
