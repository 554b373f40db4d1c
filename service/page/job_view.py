"""What the page shows of one job: its row in the table, its heading, its log."""

import html
import time
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from service.jobs.rows import WITH_TRAINER, Job, State
from training.run.files import (
    epochs_finished,
    last_lines,
    last_progress,
    progress,
    validation,
)

_MOST_LINES = 200
_HEADING = """<h3>Job {number}: {name} · {state}</h3>
<div style="height: 8px; border-radius: 4px; background: var(--border-color-primary)">
<div style="height: 8px; border-radius: 4px; background: var(--color-accent);
 width: {share:.1%}"></div></div>
<div>{words}</div>
<div style="white-space: pre-wrap">{message}</div>"""


def row(job: Job) -> tuple[Any, ...]:
    """Return the cells of a job's row in the table of jobs."""
    reached = validation(job.directory)
    accuracy = f"{reached.accuracy:.2%}" if reached else ""
    submitted = _clock(job.submitted)
    epochs = f"{epochs_finished(job.directory)} of {job.config.epochs}"
    return job.id, job.config.export_name, str(job.state), epochs, accuracy, submitted


def heading(job: Job) -> str:
    """Return the HTML of a job's state, how far it has come, and its message."""
    come = progress(job.directory)
    share, words = 0.0, "has not begun"
    if job.state is State.SUCCEEDED:
        share, words = 1.0, "the model is exported"
    elif come:
        share = (come.epoch - 1 + come.step / come.steps) / come.epochs
        words = f"epoch {come.epoch} of {come.epochs}, step {come.step} of {come.steps}"
    if job.devices:
        words += f"; GPU {', '.join(job.devices)}"
    if job.state in WITH_TRAINER and (moved := last_progress(job.directory)):
        words += f"; last progress at {_clock(moved)}"
    return _HEADING.format(
        number=job.id,
        name=html.escape(job.config.export_name),
        state=job.state,
        words=words,
        share=share,
        message=html.escape(job.message),
    )


def log(job: Job) -> str:
    """Return the HTML of the last lines of a job's log."""
    lines = "\n".join(last_lines(job.directory, _MOST_LINES))
    return f"<div><pre>{html.escape(lines)}</pre></div>"


def times(job: Job | None, *names: str) -> Hashable:
    """Return a value that changes with the job and with these files of its run."""
    if job is None:
        return None
    return job.id, job.state, job.message, *(_time(job.directory / n) for n in names)


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _time(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
