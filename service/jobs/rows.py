"""A job: what a row of the table of jobs says."""

import sqlite3
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import FiniteFloat, Json, TypeAdapter, ValidationError

from training.cli.settings import describe
from training.config import TrainConfig
from training.errors import printable

_LONGEST_REASON = 500


class State(StrEnum):
    """What has become of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"  # its trainer has still to end
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"  # someone but the service told it to stop


WITH_TRAINER = (State.RUNNING, State.CANCELLING)
UNFINISHED = (State.QUEUED, *WITH_TRAINER)
RESUMABLE = (State.FAILED, State.CANCELLED, State.INTERRUPTED)
PRUNED = "Pruned after epoch "  # begins the message of a trial that was a bad one


@dataclass(frozen=True)
class Job:
    """A row of the table of jobs; times are seconds since 1970."""

    id: int
    sweep: int | None
    config: TrainConfig  # if the row cannot be read: the defaults
    state: State
    priority: int
    gpus: int | None  # that it asks for; None: one where there are any
    devices: tuple[str, ...]  # the GPUs of its last trainer
    attempts: int  # starts since the last one that finished an epoch
    epochs: int  # finished at the last start
    message: str
    submitted: float
    started: float | None
    ended: float | None
    trial: int | None = None  # its number in a search, from 1
    is_drawn: bool = True  # a trial has no values of its own before its first start
    is_readable: bool = True  # if it is not, the message says why

    @property
    def directory(self) -> Path:
        """Return the directory of the run."""
        return self.config.run_dir / str(self.id)

    @property
    def is_pruned(self) -> bool:
        """Return whether it is a trial that was ended since it was a bad one."""
        return self.state is State.CANCELLED and self.message.startswith(PRUNED)


# The type of each column, and what stands for a value that is damaged.
_COLUMNS: dict[str, tuple[TypeAdapter[Any], Any]] = {
    "sweep": (TypeAdapter(int | None), None),
    "state": (TypeAdapter(State), State.FAILED),
    "priority": (TypeAdapter(int), 0),
    "gpus": (TypeAdapter(int | None), None),
    "devices": (TypeAdapter(Json[tuple[str, ...]]), ()),
    "attempts": (TypeAdapter(int), 1),
    "epochs": (TypeAdapter(int), 0),
    "message": (TypeAdapter(str), ""),
    "submitted": (TypeAdapter(FiniteFloat), 0.0),
    "started": (TypeAdapter(FiniteFloat | None), None),
    "ended": (TypeAdapter(FiniteFloat | None), None),
    "trial": (TypeAdapter(int | None), None),
    "is_drawn": (TypeAdapter(bool), True),
}


def job_of(row: sqlite3.Row, runs: Path) -> Job:
    """Return the job of a row, also of one that is damaged or of another version.

    Args:
        row: A row of the table.
        runs: Where the runs are, for a row that does not say it.
    """
    values: dict[str, Any] = {"id": row["id"]}
    damages = []
    for name, (column, default) in _COLUMNS.items():
        try:
            values[name] = column.validate_python(row[name])
        except ValidationError:
            values[name] = default
            damages.append(f"`{name}` is {str(row[name])!r}")
    lines = values["message"].split("\n")  # of the log, some of them
    values["message"] = "\n".join(map(printable, lines))
    config = TrainConfig.model_validate({"name": "unreadable", "run_dir": runs})
    try:
        config = TrainConfig.model_validate_json(row["config"])
    except ValidationError as error:
        damages.append(describe(error, TrainConfig.model_fields).rstrip("."))
    if not damages:
        return Job(**values, config=config)
    reason = printable("; ".join(damages))[:_LONGEST_REASON]
    damage = f"The row of this job cannot be read: {reason}."
    return Job(**values | {"message": damage}, config=config, is_readable=False)
