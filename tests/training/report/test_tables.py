"""What is printed of the data."""

import numpy as np
import pytest

from training.data.pipeline import Data
from training.report.tables import print_classes


def data(labels: list[str], counts: dict[str, tuple[int, ...]]) -> Data:
    return Data(
        name="folder:/a",
        version="1",
        checksums={},
        labels=tuple(labels),
        shape=(8, 8, 1),
        served_shape=(8, 8, 1),
        dtype="uint8",
        sizes={},
        notes=(),
        splits={},
        counts=counts,
    )


def test_each_class_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    counts = {"validation": (1, 0), "train": (1200, 7), "test": (2, 3)}
    print_classes(data(["[red]ant", "\u72ac"], counts))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["2", "classes", "train", "validation", "test"],
        ["[red]ant", "1,200", "1", "2"],
        ["\u72ac", "7", "0", "3"],
    ]


@pytest.mark.parametrize("is_known", [True, False])
def test_many_classes_do_not_fill_the_screen(
    capsys: pytest.CaptureFixture[str], is_known: bool
) -> None:
    labels = [f"class {index} {'of a long name ' * 9}" for index in range(1000)]
    counts = {"train": tuple(np.arange(1000).tolist())} if is_known else {}
    print_classes(data(labels, counts))
    shown = capsys.readouterr().out
    assert shown.startswith("1000 classes")
    assert len(shown) < 2500
    assert ("10 to 999" in shown) == is_known
    assert "990 more" in shown
