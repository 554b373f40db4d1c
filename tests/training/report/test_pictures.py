"""The pictures of a run."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.report import pictures
from training.report.measures import calibration
from training.report.names import drawable, explained


def test_the_worst_mistakes_are_the_most_confident_ones() -> None:
    true = np.array([0, 1, 2, 0])
    probabilities = np.array(
        [[0.9, 0.1, 0.0], [0.6, 0.3, 0.1], [0.05, 0.95, 0.0], [0.2, 0.4, 0.4]]
    )
    assert pictures.worst_mistakes(true, probabilities).tolist() == [2, 1, 3]


def test_pictures_are_drawn_for_a_hundred_classes_and_for_no_mistake(
    tmp_path: Path,
) -> None:
    labels = [f"quite a long name {index}" for index in range(100)]
    pictures.draw_confusion(np.eye(100, dtype=int), labels, tmp_path / "confusion.png")
    nothing = np.zeros((0, 100))
    pictures.draw_mistakes(
        [], nothing[:, 0], nothing, labels, tmp_path / "mistakes.png"
    )
    pictures.draw_reliability(
        calibration(np.array([0]), np.eye(100)[:1]), tmp_path / "reliability.png"
    )
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            assert max(image.size) < 4000


LABELS = [
    *("\u72ac", "\u306d\u3053", "\uace0\uc591\uc774", "\U0001f996", "\u0915"),
    *("caf\u00e9", "Straße", "$x$", "a$b", "\\frac", "w" * 200, "#3", " "),
]


def test_names_are_drawn_without_a_warning_and_without_boxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warning is an error here, and matplotlib warns of each missing letter."""
    smaller = {"_DPI": 30, "_MISTAKE_ROWS": 1, "_CERTAINTY_IMAGES": 2}
    for name, value in smaller.items():  # it takes seconds else
        monkeypatch.setattr(pictures, name, value)
    size = len(LABELS)
    images = [np.zeros((4, 4, 1), np.uint8)] * 24
    chosen = np.arange(24) % size
    probabilities = np.eye(size)[chosen]
    pictures.draw_confusion(np.eye(size, dtype=int), LABELS, tmp_path / "1.png")
    pictures.draw_mistakes(images, chosen, probabilities, LABELS, tmp_path / "2.png")
    pictures.draw_certainty(
        dict(enumerate(images)),
        chosen,
        probabilities,
        np.linspace(0, 1, 24),
        LABELS,
        tmp_path / "3.png",
    )
    assert len(list(tmp_path.iterdir())) == 3


def test_a_name_that_cannot_be_drawn_becomes_its_number() -> None:
    names = drawable(LABELS)
    assert names[:7] == ["#0", "#1", "#2", "#3", "#4", "caf\u00e9", "Straße"]
    assert names[7:10] == [r"\$x\$", r"a\$b", "\\frac"]
    assert names[10] == "w" * 31 + "…"
    assert "\n#N is class N" in explained("title", names)
    assert explained("title", ["a", "b"]) == "title"


def test_the_ends_of_certainty() -> None:
    entropy = np.linspace(1, 2, 20)[::-1]
    most, least = pictures.most_and_least_certain(entropy)
    assert most.tolist() == list(range(19, 11, -1))
    assert least.tolist() == list(range(8))
