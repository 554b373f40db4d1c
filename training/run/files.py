"""The files of a run and of its export: names, schemas, writers and readers.

A reader treats a damaged file as if it were not there.
"""

import csv
import io
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, PositiveInt, WithJsonSchema

from training.config import TrainConfig
from training.errors import printable
from training.run.atomic import write_atomically

# In a run's directory.
CONFIG = "config.json"  # the options: a TrainConfig
PROGRESS = "progress.json"  # a Progress, written about once a second
HISTORY = "history.csv"  # a row of metrics for each finished epoch
MONITOR = "monitor.csv"  # a row for each record of the ShiftMonitor
RESULT = "result.json"  # a Result, written last
LOG = "log.txt"  # what the trainers of a service print
BEAT = ".beat"  # empty; its time is that of the last progress
TENSORBOARD = "logs"
CHECKPOINTS = "checkpoints"
MODEL = "model.keras"
SOURCE = "model.py"  # a copy of the file that --model names
CURVES_PICTURE = "curves.png"
CONFUSION_PICTURE = "confusion.png"
MISTAKES_PICTURE = "mistakes.png"
RELIABILITY_PICTURE = "reliability.png"
CERTAINTY_PICTURE = "certainty.png"
MONITOR_PICTURE = "monitor.png"

# In the directory of an exported version.
GRAPH = "saved_model.pb"
CARD = "MODEL_CARD.md"  # for people
CARD_DATA = "model_card.json"  # a ModelCard, for programs
WARM_UP_REQUESTS = Path("assets.extra", "tf_serving_warmup_requests")
DEFAULT_SIGNATURE = "serving_default"
MONTE_CARLO_SIGNATURE = "monte_carlo"
MODEL_STEM = "model"  # of the files in other formats
MONTE_CARLO_STEM = "monte_carlo"

# What Python raises for a file that train.py has not written.
_DAMAGED = (ValueError, TypeError, RecursionError, csv.Error)
_END_OF_THE_LOG = 2**14  # bytes, enough for some lines

_RUN_IN_CARD = re.compile(r"^Run `(.+)`, with these options:$", re.MULTILINE)


def _nan_for_null(value: Any) -> Any:
    return math.nan if value is None else value


# JSON has no NaN and no infinity; pydantic writes null.
Metric = Annotated[
    float,
    BeforeValidator(_nan_for_null),
    WithJsonSchema({"type": ["number", "null"]}),
]


class Progress(BaseModel):
    """How far training has come."""

    epoch: int
    epochs: PositiveInt
    step: int
    steps: PositiveInt


class Scores(BaseModel):
    """How good the model is on a split; null where that is not finite."""

    accuracy: Metric
    loss: Metric


class Metrics(BaseModel):
    """How good the model is on each split."""

    train: Scores
    validation: Scores
    test: Scores


class ClassMeasures(BaseModel):
    """How good the model is on the test images of a class; `images` is their number."""

    name: str
    precision: float
    recall: float
    f1: float
    images: int


class Measures(BaseModel):
    """How good the model's predictions of the test images are."""

    top_5_accuracy: float
    calibration_error: Metric  # the expected one, of 15 bins
    classes: list[ClassMeasures]


class Result(BaseModel):
    """What a finished run has reached, and where everything lies."""

    directory: Path
    export: Path
    epochs: int
    training_seconds: float
    metrics: Metrics
    test: Measures | None = None  # an earlier release has none


class ModelCard(BaseModel):
    """What is known about an exported version.

    A version of an earlier release has no `model_card.json`. Of its MODEL_CARD.md only
    the run and the classes are read.
    """

    run: str | None  # the `run_id`
    classes: list[str]
    dataset: str | None = None
    dataset_version: str | None = None
    metrics: Metrics | None = None
    options: dict[str, Any] | None = None  # a TrainConfig of that release


def write_config(directory: Path, config: TrainConfig) -> None:
    """Write the options of a run."""
    text = config.model_dump_json(indent=2) + "\n"
    write_atomically(directory / CONFIG, text)


def write_progress(directory: Path, progress: Progress) -> None:
    """Write how far training has come."""
    write_atomically(directory / PROGRESS, json.dumps(progress.model_dump()))


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a CSV file; the first row names the columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def write_result(result: Result) -> None:
    """Write what a run has reached into its directory."""
    text = json.dumps(result.model_dump(), indent=2, default=str)
    write_atomically(result.directory / RESULT, text)


def write_card(version: Path, card: ModelCard) -> None:
    """Write what is known about an exported version."""
    text = card.model_dump_json(indent=2) + "\n"
    (version / CARD_DATA).write_text(text, encoding="utf-8")


def progress(directory: Path) -> Progress | None:
    """Return how far training has come, or None before it has begun."""
    try:
        return Progress.model_validate_json(_read(directory / PROGRESS))
    except (OSError, *_DAMAGED):
        return None


def history(directory: Path) -> list[dict[str, float]]:
    """Return the metrics of each finished epoch."""
    try:
        text = _read(directory / HISTORY).decode()
        rows = csv.DictReader(text.splitlines())
        return [{name: float(value) for name, value in row.items()} for row in rows]
    except (OSError, *_DAMAGED):
        return []


def epochs_finished(directory: Path) -> int:
    """Return how many epochs the run has finished."""
    return len(history(directory))


def reached(directory: Path) -> Result | None:
    """Return what a finished run has reached, also where its export is gone."""
    try:
        # Not with pydantic's parser: train.py writes NaN.
        return Result.model_validate(json.loads(_read(directory / RESULT)))
    except (OSError, *_DAMAGED):
        return None


def result(directory: Path) -> Result | None:
    """Return what a finished run has reached, or None while its export is missing."""
    found = reached(directory)
    try:
        return found if found and found.export.is_dir() else None
    except OSError:  # no name of a directory
        return None


def validation(directory: Path) -> Scores | None:
    """Return the validation scores of a finished run, or of the last epoch so far."""
    if finished := reached(directory):
        return finished.metrics.validation
    try:
        *_, last = history(directory)
        return Scores(accuracy=last["val_accuracy"], loss=last["val_loss"])
    except (KeyError, ValueError):  # a damaged file, no epoch yet
        return None


def last_lines(directory: Path, number: int) -> list[str]:
    """Return the last lines of the log, each without what moves or hides text."""
    try:
        end = _read(directory / LOG, last=_END_OF_THE_LOG)
    except OSError:
        return []
    text = end.decode(errors="replace")
    # `str.splitlines` would also split where a name holds U+2028.
    lines = text.removesuffix("\n").split("\n") if text else []
    return [printable(line.rstrip("\r")) for line in lines[-number:]]


def last_progress(directory: Path) -> float | None:
    """Return when the run last got on, in seconds since 1970, or None before that."""
    try:
        return (directory / BEAT).stat().st_mtime
    except OSError:
        return None


def model_card(version: Path) -> ModelCard | None:
    """Return what is known about an exported version, or None if it has no card."""
    try:
        return ModelCard.model_validate_json((version / CARD_DATA).read_bytes())
    except (OSError, *_DAMAGED):
        pass
    try:
        return _read_markdown((version / CARD).read_text(encoding="utf-8"))
    except (OSError, *_DAMAGED):
        return None


def _read(path: Path, last: int | None = None) -> bytes:
    """Return a file of a run, or its last bytes. A link or a pipe is no file of it."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags), "rb") as file:
        if last is not None:
            file.seek(max(0, file.seek(0, os.SEEK_END) - last))
        return file.read()


def _read_markdown(card: str) -> ModelCard:
    run = _RUN_IN_CARD.search(card)
    section = card.partition("\n## Classes\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    classes = [row.split(" | ", 1)[1].removesuffix(" |") for row in rows[1:]]
    return ModelCard(run=run[1] if run else None, classes=classes)
