"""What the files of a run say about it."""

import csv
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

LOG = "log.txt"  # what trainers print

# What a file that is not what train.py has written makes Python raise: it counts as
# not there.
_DAMAGED = (ValueError, TypeError, KeyError)
_END_OF_THE_LOG = 2**14  # bytes, enough for some lines


class Progress(BaseModel):
    """How far training has come."""

    epoch: int
    epochs: int
    step: int
    steps: int


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
        return Progress.model_validate(_read(directory / "progress.json"))
    except (OSError, *_DAMAGED):
        return None


def result(directory: Path) -> dict[str, Any] | None:
    """What a finished run has reached; None while its export is not there."""
    try:
        values = _read(directory / "result.json")
        return values if Path(values["export"]).is_dir() else None
    except (OSError, *_DAMAGED):
        return None


def last_lines(directory: Path, number: int) -> list[str]:
    """The last lines of the log."""
    try:
        with (directory / LOG).open("rb") as log:
            log.seek(max(0, log.seek(0, 2) - _END_OF_THE_LOG))
            return log.read().decode(errors="replace").splitlines()[-number:]
    except OSError:
        return []


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
