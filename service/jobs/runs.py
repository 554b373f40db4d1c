"""What the files of a run say about it."""

import csv
import json
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, PositiveInt, WithJsonSchema

LOG = "log.txt"  # what trainers print

# What a file that is not what train.py has written makes Python raise: it counts as
# not there.
_DAMAGED = (ValueError, TypeError, RecursionError)
_END_OF_THE_LOG = 2**14  # bytes, enough for some lines


# JSON has no NaN and no infinity; pydantic writes null.
Metric = Annotated[float, WithJsonSchema({"type": ["number", "null"]})]


class Progress(BaseModel):
    """How far training has come."""

    epoch: int
    epochs: PositiveInt
    step: int
    steps: PositiveInt


class Scores(BaseModel):
    """How good the model is on a split; null where that is not finite."""

    loss: Metric
    accuracy: Metric


class Metrics(BaseModel):
    """How good the model is on each split."""

    train: Scores
    validation: Scores
    test: Scores


class Result(BaseModel):
    """What a finished run has reached, and where everything lies."""

    directory: Path
    export: Path
    epochs: int
    training_seconds: float
    metrics: Metrics


def history(directory: Path) -> list[dict[str, float]]:
    """The metrics of each finished epoch."""
    try:
        text = (directory / "history.csv").read_text(encoding="utf-8")
        rows = csv.DictReader(text.splitlines())
        return [{name: float(value) for name, value in row.items()} for row in rows]
    except (OSError, *_DAMAGED):
        return []


def epochs_finished(directory: Path) -> int:
    """How many epochs the run has behind it."""
    return len(history(directory))


def progress(directory: Path) -> Progress | None:
    """How far training has come, if it has begun."""
    try:
        return Progress.model_validate_json((directory / "progress.json").read_bytes())
    except (OSError, *_DAMAGED):
        return None


def result(directory: Path) -> Result | None:
    """What a finished run has reached; None while its export is not there."""
    try:
        # Not by pydantic's parser: train.py may have written NaN.
        values = json.loads((directory / "result.json").read_text(encoding="utf-8"))
        found = Result.model_validate(values)
        return found if found.export.is_dir() else None
    except (OSError, *_DAMAGED):
        return None


def validation(directory: Path) -> Scores | None:
    """Those of the finished run, else of its last epoch."""
    if finished := result(directory):
        return finished.metrics.validation
    try:
        *_, last = history(directory)
        return Scores(loss=last["val_loss"], accuracy=last["val_accuracy"])
    except (KeyError, ValueError):  # a damaged file, no epoch yet
        return None


def last_lines(directory: Path, number: int) -> list[str]:
    """The last lines of the log."""
    try:
        with (directory / LOG).open("rb") as log:
            log.seek(max(0, log.seek(0, 2) - _END_OF_THE_LOG))
            return log.read().decode(errors="replace").splitlines()[-number:]
    except OSError:
        return []
