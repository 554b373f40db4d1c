"""The page's tab of jobs: start, watch, cancel, resume, compare."""

import html
import sqlite3
import time
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from service.jobs.paths import Roots
from service.jobs.store import RESUMABLE, Job, State, Store
from service.jobs.submission import SubmissionError, configs_of
from service.page.compare import Comparison
from service.page.curves import curves
from service.page.form import Form, complaint
from service.page.models import CARD
from training.run.files import (
    epochs_finished,
    history,
    last_lines,
    progress,
    result,
    validation,
)

_COLUMNS = ("job", "model", "state", "epoch", "validation accuracy", "submitted")
_MOST_JOBS = 100
_MOST_LINES = 200
_SECONDS_BETWEEN_LOOKS = 1.0
_RUNNING = (State.QUEUED, State.RUNNING)
_HEADING = """<h3>Job {number}: {name} · {state}</h3>
<div style="height: 8px; border-radius: 4px; background: var(--border-color-primary)">
<div style="height: 8px; border-radius: 4px; background: var(--color-accent);
 width: {share:.1%}"></div></div>
<div>{words}</div>
<div style="white-space: pre-wrap">{message}</div>"""

Updates = dict[gr.blocks.Block, Any]


class JobsTab:
    """Made inside a `gr.Blocks`.

    Args:
        store: The jobs.
        roots: What their paths are confined to.
    """

    def __init__(self, store: Store, roots: Roots) -> None:
        self._store = store
        self._roots = roots
        with gr.Accordion("Start a job", elem_id="start-a-job") as self._starting:
            self._form = Form()
            start = gr.Button("Start", variant="primary", elem_id="start")
        self._message = gr.Markdown(elem_id="message")
        self._table = gr.Dataframe(
            headers=list(_COLUMNS),
            datatype=["number", "str", "str", "str", "str", "str"],
            column_widths=["8%", "28%", "14%", "14%", "16%", "20%"],
            label=f"The newest {_MOST_JOBS} jobs; click on one to see it",
            interactive=False,
            max_height=300,
            elem_id="jobs",
        )
        self._chosen = gr.State(None)
        self._shown = gr.State({})
        self._build_chosen()
        with gr.Accordion("Compare jobs", open=False, elem_id="compare-jobs"):
            self._comparison = Comparison(store)
        start.click(
            self._start,
            self._form.inputs,
            [self._message, self._chosen, self._starting],
            api_visibility="private",
        )
        self._table.select(_number_of_row, None, self._chosen, api_visibility="private")
        self._cancel.click(
            self._ask_to_cancel, self._chosen, self._message, api_visibility="private"
        )
        self._resume.click(
            self._queue_again, self._chosen, self._message, api_visibility="private"
        )
        gr.Timer(_SECONDS_BETWEEN_LOOKS).tick(
            self._look,
            [self._chosen, self._comparison.chosen, self._shown],
            [*self._outputs, *self._comparison.outputs, self._table, self._shown],
            api_visibility="private",
        )

    def _build_chosen(self) -> None:
        with gr.Column(visible=False) as self._column:
            with gr.Row():
                self._heading = gr.HTML(elem_id="heading")
                self._cancel, self._resume = (
                    gr.Button(
                        name, size="sm", elem_id=name.lower(), scale=0, min_width=90
                    )
                    for name in ("Cancel", "Resume")
                )
            self._curves = gr.Plot(show_label=False, elem_id="curves")
            with gr.Accordion("Log", elem_id="log"):
                self._log = gr.HTML()
            self._pictures = gr.Gallery(
                label="Pictures",
                columns=4,
                height="auto",
                object_fit="contain",
                format="png",
                interactive=False,
                elem_id="pictures",
            )
            with gr.Accordion("Model card", open=False, elem_id="model-card"):
                self._card = gr.Markdown()
        self._outputs = [
            *(self._column, self._heading, self._cancel, self._resume),
            *(self._curves, self._log, self._pictures, self._card),
        ]

    def _start(self, *inputs: Any) -> Updates:
        try:
            values, priority = self._form.read(*inputs)
            swept, configs = configs_of(values, self._roots)
            if not swept:
                job = self._store.add(configs[0], priority)
                return self._started(f"Job {job.id} is queued.", job)
            number, jobs = self._store.add_sweep(swept, configs, priority)
        except SubmissionError as error:
            return {self._message: f"**Not started.** {complaint(error)}"}
        except sqlite3.Error as error:
            message = f"**Not started.** The jobs cannot be kept: {error}."
            return {self._message: message}
        return self._started(f"Sweep {number} is queued: {len(jobs)} jobs.", jobs[0])

    def _started(self, message: str, job: Job) -> Updates:
        """Shows a job in the place of the form."""
        return {
            self._message: message,
            self._chosen: job.id,
            self._starting: gr.Accordion(open=False),
        }

    def _ask_to_cancel(self, number: int) -> str:
        if self._store.cancel(number):
            return f"Job {number} is being cancelled; what it has done stays."
        return f"Job {number} has ended already."

    def _queue_again(self, number: int) -> str:
        if self._store.requeue(number, RESUMABLE):
            return f"Job {number} is queued again; it goes on from its checkpoint."
        return f"Job {number} cannot be resumed as it is."

    def _look(
        self, chosen: int | None, compared: list[str], shown: dict[str, Hashable]
    ) -> Updates:
        """What has changed since this browser was last told."""
        now: dict[str, Hashable] = {}
        updates: Updates = {}
        jobs = self._store.page(None, _MOST_JOBS, 0)
        rows = tuple(map(_row, jobs))
        now["jobs"] = rows
        if now["jobs"] != shown.get("jobs"):
            updates[self._table] = [list(row) for row in rows]
        job = None if chosen is None else self._store.get(chosen)
        for name, key, show in (
            ("job", _times(job, "progress.json", "history.csv", "log.txt"), self._job),
            ("curves", _times(job, "history.csv"), self._draw_curves),
            ("results", _times(job, "result.json"), self._results),
        ):
            now[name] = key
            if now[name] != shown.get(name):
                updates |= show(job)
        now["compared"], compare = self._comparison.look(jobs, compared)
        if now["compared"] != shown.get("compared"):
            updates |= compare()
        return {**updates, self._shown: now}

    def _job(self, job: Job | None) -> Updates:
        if job is None:
            return {self._column: gr.Column(visible=False)}
        can_be_cancelled = job.state in _RUNNING and not job.cancelling
        return {
            self._column: gr.Column(visible=True),
            self._heading: _heading(job),
            self._cancel: gr.Button(interactive=can_be_cancelled),
            self._resume: gr.Button(interactive=job.state in RESUMABLE),
            self._log: _log(job),
        }

    def _draw_curves(self, job: Job | None) -> Updates:
        epochs = history(job.directory) if job else []
        if job is None or not epochs:
            return {self._curves: gr.Plot(visible=False)}
        figure = curves(epochs, job.config.epochs)
        return {self._curves: gr.Plot(figure, visible=True)}

    def _results(self, job: Job | None) -> Updates:
        finished = result(job.directory) if job else None
        if job is None or finished is None:
            return {
                self._pictures: gr.Gallery(visible=False),
                self._card: "The job has not finished yet.",
            }
        card = finished.export / CARD
        pictures = [
            (Image.open(p), p.stem) for p in sorted(job.directory.glob("*.png"))
        ]
        return {
            self._pictures: gr.Gallery(pictures, visible=True),
            self._card: card.read_text(encoding="utf-8")
            if card.exists()
            else f"{card} has been removed.",
        }


def _row(job: Job) -> tuple[Any, ...]:
    reached = validation(job.directory)
    accuracy = f"{reached.accuracy:.2%}" if reached else ""
    submitted = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.submitted))
    state = "cancelling" if job.cancelling else str(job.state)
    return (
        *(job.id, job.config.export_name, state),
        *(
            f"{epochs_finished(job.directory)} of {job.config.epochs}",
            accuracy,
            submitted,
        ),
    )


def _number_of_row(event: gr.SelectData) -> int:
    return int(event.row_value[0])


def _heading(job: Job) -> str:
    """The job's state, how far it has come, and why it is so."""
    come = progress(job.directory)
    share, words = 0.0, "has not begun"
    if job.state is State.SUCCEEDED:
        share, words = 1.0, "the model is exported"
    elif come:
        share = (come.epoch - 1 + come.step / come.steps) / come.epochs
        words = f"epoch {come.epoch} of {come.epochs}, step {come.step} of {come.steps}"
    return _HEADING.format(
        number=job.id,
        name=html.escape(job.config.export_name),
        state="cancelling" if job.cancelling else job.state,
        words=words,
        share=share,
        message=html.escape(job.message),
    )


def _log(job: Job) -> str:
    lines = "\n".join(last_lines(job.directory, _MOST_LINES))
    return f"<div><pre>{html.escape(lines)}</pre></div>"


def _times(job: Job | None, *names: str) -> Hashable:
    """Changes whenever the job or one of these files of its run does."""
    if job is None:
        return None
    return job.id, job.state, job.cancelling, *(_time(job.directory / n) for n in names)


def _time(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
