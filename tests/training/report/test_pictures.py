"""The pictures of a run."""

from pathlib import Path

import numpy as np
from PIL import Image

from training.report import pictures


def test_the_worst_mistakes_are_the_most_confident_ones() -> None:
    true = np.array([0, 1, 2, 0])
    probabilities = np.array(
        [[0.9, 0.1, 0.0], [0.6, 0.3, 0.1], [0.05, 0.95, 0.0], [0.2, 0.4, 0.4]]
    )
    assert pictures.worst_mistakes(true, probabilities).tolist() == [2, 1, 3]
    counts = pictures.confusion_matrix(true, probabilities.argmax(axis=1), 3)
    assert counts.tolist() == [[1, 1, 0], [1, 0, 0], [0, 1, 0]]


def test_pictures_are_drawn_for_a_hundred_classes_and_for_no_mistake(
    tmp_path: Path,
) -> None:
    labels = [f"quite a long name {index}" for index in range(100)]
    pictures.draw_confusion(np.eye(100, dtype=int), labels, tmp_path / "confusion.png")
    nothing = np.zeros((0, 100))
    pictures.draw_mistakes(
        [], nothing[:, 0], nothing, labels, tmp_path / "mistakes.png"
    )
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            assert max(image.size) < 4000
