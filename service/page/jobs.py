"""The page's tab of jobs: start, watch, cancel, resume, compare."""

import sqlite3
from collections.abc import Hashable
from typing import Any

import gradio as gr
from PIL import Image

from service.jobs.answers import result_of
from service.jobs.gpus import Gpus
from service.jobs.paths import Roots
from service.jobs.rows import RESUMABLE, Job, State
from service.jobs.store import Store
from service.jobs.submission import SubmissionError, configs_of
from service.page.compare import Comparison
from service.page.curves import curves
from service.page.form import Form, complaint
from service.page.job_view import heading, log, row, times
from training.run import files

_COLUMNS = ("job", "model", "state", "epoch", "validation accuracy", "submitted")
_MOST_JOBS = 100
_SECONDS_BETWEEN_LOOKS = 1.0
_CANCELLABLE = (State.QUEUED, State.RUNNING)
_SHOWN_FILES = (files.PROGRESS, files.HISTORY, files.LOG, files.BEAT)

Updates = dict[gr.blocks.Block, Any]


class JobsTab:
    """The tab; it appears where it is made, in a `gr.Blocks`.

    Args:
        store: The jobs.
        roots: The directories that the jobs' paths must lie in.
        gpus: What jobs can have of the GPUs.
    """

    def __init__(self, store: Store, roots: Roots, gpus: Gpus) -> None:
        self._store = store
        self._roots = roots
        self._gpus = gpus
        with gr.Accordion("Start a job", elem_id="start-a-job") as self._starting:
            self._form = Form(gpus)
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
            values, priority, gpus = self._form.read(*inputs)
            self._gpus.check(gpus)
            swept, configs = configs_of(values, self._roots)
            if not swept:
                job = self._store.add(configs[0], priority, gpus)
                return self._started(f"Job {job.id} is queued.", job)
            number, jobs = self._store.add_sweep(swept, configs, priority, gpus)
        except SubmissionError as error:
            return {self._message: f"**Not started.** {complaint(error)}"}
        except sqlite3.Error as error:
            message = f"**Not started.** The jobs cannot be kept: {error}."
            return {self._message: message}
        return self._started(f"Sweep {number} is queued: {len(jobs)} jobs.", jobs[0])

    def _started(self, message: str, job: Job) -> Updates:
        """Show a job in the place of the form."""
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
        if self._store.resume(number):
            return f"Job {number} is queued again; it goes on from its checkpoint."
        return f"Job {number} cannot be resumed as it is."

    def _look(
        self, chosen: int | None, compared: list[str], shown: dict[str, Hashable]
    ) -> Updates:
        """Return what has changed since this browser was last told."""
        now: dict[str, Hashable] = {}
        updates: Updates = {}
        jobs = self._store.page(None, _MOST_JOBS, 0)
        rows = tuple(map(row, jobs))
        now["jobs"] = rows
        if now["jobs"] != shown.get("jobs"):
            updates[self._table] = [list(cells) for cells in rows]
        job = None if chosen is None else self._store.get(chosen)
        for name, key, show in (
            ("job", times(job, *_SHOWN_FILES), self._job),
            ("curves", times(job, files.HISTORY), self._draw_curves),
            ("results", times(job, files.RESULT), self._results),
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
        can_be_cancelled = job.state in _CANCELLABLE
        return {
            self._column: gr.Column(visible=True),
            self._heading: heading(job),
            self._cancel: gr.Button(interactive=can_be_cancelled),
            self._resume: gr.Button(interactive=job.state in RESUMABLE),
            self._log: log(job),
        }

    def _draw_curves(self, job: Job | None) -> Updates:
        epochs = files.history(job.directory) if job else []
        if job is None or not epochs:
            return {self._curves: gr.Plot(visible=False)}
        figure = curves(epochs, job.config.epochs)
        return {self._curves: gr.Plot(figure, visible=True)}

    def _results(self, job: Job | None) -> Updates:
        finished = result_of(job) if job else None
        if job is None or finished is None:
            return {
                self._pictures: gr.Gallery(visible=False),
                self._card: "The job has not finished yet.",
            }
        card = finished.export / files.CARD
        pictures = [
            (Image.open(p), p.stem)
            for p in sorted(job.directory.glob("*.png"))
            if not p.is_symlink()
        ]
        return {
            self._pictures: gr.Gallery(pictures, visible=True),
            self._card: card.read_text(encoding="utf-8")
            if card.exists()
            else f"{card} has been removed.",
        }


def _number_of_row(event: gr.SelectData) -> int:
    return int(event.row_value[0])
