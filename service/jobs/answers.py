"""What the service answers about jobs."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from service.jobs.plan import Plan, Range
from service.jobs.rows import Job, State
from training.config import TrainConfig
from training.run.files import (
    Metric,
    Progress,
    Result,
    Scores,
    epochs_finished,
    history,
    last_progress,
    progress,
    reached,
    result,
    validation,
)


class JobSummary(BaseModel):
    """A job as it stands in lists."""

    id: int
    name: str = Field(description="of the model that it exports")
    state: State
    priority: int = Field(description="the higher, the sooner; then first come")
    sweep: int | None
    gpus: int | None = Field(
        description="that it asks for; null: one where the service has any"
    )
    devices: list[str] = Field(
        description="the GPUs of its trainer, or of its last one, as "
        "CUDA_VISIBLE_DEVICES names them; empty where Ray chooses them"
    )
    message: str = Field(description="why it is in this state, where there is a reason")
    submitted: float = Field(description="seconds since 1970")
    started: float | None
    ended: float | None


class JobDetail(JobSummary):
    """A job with all that is known about it."""

    config: TrainConfig | None = Field(
        description="null if the row of the table cannot be read"
    )
    progress: Progress | None
    last_progress: float | None = Field(
        description="when the trainer last got on; seconds since 1970"
    )
    metrics: dict[str, Metric] | None = Field(
        description="of the last finished epoch; null where they are not finite"
    )
    result: Result | None
    directory: Path = Field(description="the directory of the run")


class JobPage(BaseModel):
    """A page of the list of jobs, the newest first."""

    total: int
    jobs: list[JobSummary]


class SweepRow(BaseModel):
    """A job of a sweep: its values of the fields that differ, and what it reached."""

    job: int
    state: State
    message: str = Field(description="why it is in this state, where there is a reason")
    trial: int | None = Field(description="its number in a search, from 1")
    values: dict[str, Any] = Field(description="none before those of a trial are drawn")
    epochs: int
    validation: Scores | None


class Trial(BaseModel):
    """The best trial of a search."""

    trial: int = Field(description="its number")
    job: int
    value: Metric = Field(description="its validation accuracy")
    options: dict[str, Any] = Field(description="its values of those that are searched")


class Search(BaseModel):
    """What a search tries, and what it has found."""

    trials: int = Field(description="how many jobs it has been submitted with")
    ranges: dict[str, Range]
    choices: dict[str, list[Any]]
    pruned: int = Field(description="how many trials were ended since they were bad")
    best: Trial | None = Field(description="of those that have succeeded")


class Sweep(BaseModel):
    """The jobs of a sweep side by side."""

    id: int
    fields: list[str]
    rows: list[SweepRow]
    best: int | None = Field(
        description="the succeeded job with the highest validation accuracy"
    )
    search: Search | None = Field(description="null for a grid")


class Cancelled(BaseModel):
    """The jobs that were queued or running and are now cancelled or being cancelled."""

    jobs: list[int]


class Artifact(BaseModel):
    """A file of a run."""

    path: str
    size: int = Field(description="bytes")


def summary(job: Job) -> JobSummary:
    """Return a job as it stands in lists."""
    return JobSummary(**_columns(job))


def detail(job: Job) -> JobDetail:
    """Return a job with what its run's files say."""
    epochs = history(job.directory)
    return JobDetail(
        **_columns(job),
        config=job.config if job.is_readable else None,
        progress=progress(job.directory),
        last_progress=last_progress(job.directory),
        metrics=epochs[-1] if epochs else None,
        result=result_of(job),
        directory=job.directory,
    )


def result_of(job: Job) -> Result | None:
    """Return what a job has reached, of one that succeeded also without its export."""
    find = reached if job.state is State.SUCCEEDED else result
    return find(job.directory)


def sweep(number: int, fields: list[str], jobs: list[Job], plan: str | None) -> Sweep:
    """Return the jobs of a sweep or of a search side by side.

    Args:
        number: Of the sweep.
        fields: The options that differ.
        jobs: Its jobs.
        plan: What a search tries; None for a grid.
    """
    rows = [
        SweepRow(
            job=job.id,
            state=job.state,
            message=job.message,
            trial=job.trial,
            values=job.config.model_dump(mode="json", include=set(fields))
            if job.is_readable and job.is_drawn
            else {},
            epochs=epochs_finished(job.directory),
            validation=validation(job.directory),
        )
        for job in jobs
    ]
    accuracy = {
        row.job: row.validation.accuracy
        for row in rows
        if row.state is State.SUCCEEDED and row.validation
    }
    best = max(accuracy, key=accuracy.__getitem__, default=None)
    search = _search(plan, jobs)
    if search and best is not None:
        row = next(row for row in rows if row.job == best)
        search.best = Trial(
            trial=row.trial or 0, job=best, value=accuracy[best], options=row.values
        )
    return Sweep(id=number, fields=fields, rows=rows, best=best, search=search)


def _search(plan: str | None, jobs: list[Job]) -> Search | None:
    try:
        searched = Plan.model_validate_json(plan or "")
    except ValidationError:  # a grid, or damaged
        return None
    return Search(
        trials=searched.trials,
        ranges=searched.ranges,
        choices={n: list(map(json.loads, of)) for n, of in searched.choices.items()},
        pruned=sum(job.is_pruned for job in jobs),
        best=None,
    )


def _columns(job: Job) -> dict[str, Any]:
    names = set(JobSummary.model_fields) - {"name"}
    return {"name": job.config.export_name} | {n: getattr(job, n) for n in names}
