"""The files of a run and of its export, written and read."""

import json
import math
from pathlib import Path

import pytest

from training.config import TrainConfig
from training.run import files
from training.run.files import Metrics, ModelCard, Progress, Result, Scores


def metrics(loss: float = 0.25) -> Metrics:
    scores = Scores(accuracy=0.5, loss=loss)
    return Metrics(train=scores, validation=scores, test=scores)


def result(directory: Path, loss: float = 0.25) -> Result:
    return Result(
        directory=directory,
        export=directory,
        epochs=3,
        training_seconds=2.5,
        metrics=metrics(loss),
    )


def test_written_files_have_the_bytes_of_earlier_releases(tmp_path: Path) -> None:
    """As `json.dumps` and `csv` wrote them when each caller had its own line."""
    files.write_result(result(tmp_path, math.nan))
    scores = {"accuracy": 0.5, "loss": math.nan}
    expected = {
        "directory": str(tmp_path),
        "export": str(tmp_path),
        "epochs": 3,
        "training_seconds": 2.5,
        "metrics": dict.fromkeys(("train", "validation", "test"), scores),
        "test": None,  # which earlier releases did not have
    }
    text = (tmp_path / "result.json").read_text()
    assert text == json.dumps(expected, indent=2)
    assert "NaN" in text
    files.write_progress(tmp_path, Progress(epoch=1, epochs=2, step=3, steps=4))
    text = (tmp_path / "progress.json").read_text()
    assert text == '{"epoch": 1, "epochs": 2, "step": 3, "steps": 4}'
    rows = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": math.nan}]
    files.write_rows(tmp_path / "history.csv", rows)
    assert (tmp_path / "history.csv").read_bytes() == b"epoch,loss\n1,0.5\n2,nan\n"
    config = TrainConfig(seed=7)
    files.write_config(tmp_path, config)
    text = (tmp_path / "config.json").read_text()
    assert text == config.model_dump_json(indent=2) + "\n"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    files.write_result(result(tmp_path))
    assert files.result(tmp_path) == result(tmp_path)
    progress = Progress(epoch=1, epochs=2, step=3, steps=4)
    files.write_progress(tmp_path, progress)
    assert files.progress(tmp_path) == progress
    rows = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}]
    files.write_rows(tmp_path / files.HISTORY, rows)
    assert files.history(tmp_path) == rows
    assert files.epochs_finished(tmp_path) == 2


def test_a_run_that_has_not_begun(tmp_path: Path) -> None:
    assert files.progress(tmp_path) is None
    assert files.history(tmp_path) == []
    assert files.epochs_finished(tmp_path) == 0
    assert files.result(tmp_path) is None
    assert files.validation(tmp_path) is None
    assert files.last_lines(tmp_path, 3) == []
    assert files.model_card(tmp_path) is None


DAMAGED = [
    *("", "{}", "[]", "a,b\n1", "{", "\x00", "[" * 100_000, "epoch,loss\n1,0.5\n"),
    *('{"export": "/"}', '{"epoch": 1, "epochs": 1, "step": 0, "steps": 0}'),
    "x" * 200_000 + "\n1\n",  # longer than csv reads
]


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_file_counts_as_not_there(tmp_path: Path, text: str) -> None:
    for name in (files.PROGRESS, files.HISTORY, files.RESULT, files.CARD_DATA):
        (tmp_path / name).write_text(text)
    assert files.progress(tmp_path) is None
    assert files.result(tmp_path) is None
    assert files.validation(tmp_path) is None
    assert files.model_card(tmp_path) is None


def test_lines_of_the_log_end_at_line_feeds_alone(tmp_path: Path) -> None:
    """A name in it cannot begin a line, nor move or hide the rest."""
    names = "a\u2028error: x\x85error: y\x0bz\x1b[2K\u202e\ud7ff"
    text = f"first\r\n\n{names}\ttab\nlast"
    (tmp_path / files.LOG).write_bytes(text.encode())
    said = r"a\u2028error: x\x85error: y\x0bz\x1b[2K\u202e" + "\ud7ff\ttab"
    assert files.last_lines(tmp_path, 9) == ["first", "", said, "last"]
    assert files.last_lines(tmp_path, 1) == ["last"]
    (tmp_path / files.LOG).write_bytes(text.encode() + b"\n")
    assert files.last_lines(tmp_path, 1) == ["last"]


def test_a_result_without_its_export_counts_as_not_there(tmp_path: Path) -> None:
    gone = result(tmp_path).model_copy(update={"export": tmp_path / "gone"})
    files.write_result(gone)
    assert files.result(tmp_path) is None


def test_scores_that_are_not_finite_are_read_and_null_in_json(tmp_path: Path) -> None:
    files.write_result(result(tmp_path, math.nan))
    found = files.result(tmp_path)
    assert found is not None
    assert math.isnan(found.metrics.test.loss)
    assert json.loads(found.metrics.test.model_dump_json()) == {
        "accuracy": 0.5,
        "loss": None,
    }


def test_the_validation_is_that_of_the_result_else_of_the_last_epoch(
    tmp_path: Path,
) -> None:
    rows = [
        {"epoch": n, "val_loss": n / 8, "val_accuracy": n / 16} for n in range(1, 4)
    ]
    files.write_rows(tmp_path / files.HISTORY, rows)
    assert files.validation(tmp_path) == Scores(accuracy=3 / 16, loss=3 / 8)
    files.write_result(result(tmp_path))
    assert files.validation(tmp_path) == Scores(accuracy=0.5, loss=0.25)


def test_the_last_lines_of_a_long_log(tmp_path: Path) -> None:
    lines = [f"line {number}" for number in range(10_000)]
    (tmp_path / files.LOG).write_text("\n".join(lines))
    assert files.last_lines(tmp_path, 3) == lines[-3:]


@pytest.mark.parametrize("loss", [0.25, math.nan])
def test_a_model_card_is_read_as_it_was_written(tmp_path: Path, loss: float) -> None:
    card = ModelCard(
        run="0f",
        classes=["a b", "c | d"],
        dataset="mnist",
        dataset_version="3.0.1",
        metrics=metrics(loss),
        options={"epochs": 4, "max_norm": None},
    )
    files.write_card(tmp_path, card)
    found = files.model_card(tmp_path)
    assert found is not None
    assert found.model_dump_json() == card.model_dump_json()
    assert found.metrics is not None
    read = found.metrics.train.loss
    assert math.isnan(read) if math.isnan(loss) else read == loss
    # Other programs read it, too, and JSON has no NaN.
    json.loads((tmp_path / "model_card.json").read_text(), parse_constant=pytest.fail)


OLD_CARD = """# small

## Classes

| index | name |
|---|---|
| 0 | a b |
| 1 | c | d |

## Data

folder:/x, version 3 pictures.

| archive | SHA-256 |
|---|---|
| all pictures | `00` |

## Training

Run `1d0d6f`, with these options:

```json
{}
```
"""


def test_the_card_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    (tmp_path / "MODEL_CARD.md").write_text(OLD_CARD)
    expected = ModelCard(run="1d0d6f", classes=["a b", "c | d"])
    assert files.model_card(tmp_path) == expected
    (tmp_path / "model_card.json").write_text("{")  # damaged: as if it were not there
    assert files.model_card(tmp_path) == expected


def test_the_card_of_another_project(tmp_path: Path) -> None:
    (tmp_path / "MODEL_CARD.md").write_text("# another card")
    assert files.model_card(tmp_path) == ModelCard(run=None, classes=[])
