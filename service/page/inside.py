"""The page's tab that shows the inside of finished runs."""

from typing import Any

import gradio as gr
import tensorflow as tf

from service.jobs.store import Job, State, Store
from service.page.layers import normalizations, thinned
from service.page.network import network
from service.page.normalization import distributions, statistics
from training.errors import UserError, first_line
from training.run import files

_MOST_JOBS = 100

_NORM = """### Batch normalization, on test images
The distributions of what each layer is given and of what it gives on, at inference."""
_MONITOR = """### How its statistics came about
Over the training: the median and, as a band, the 15th to the 85th percentile."""
_NOT_RECORDED = """### How its statistics came about
This run was not recorded. Start one with the option *monitor*."""
_DROPOUT = """### Dropout: one thinned network for each mask
The mask is drawn by the run's own dropout layers; crossed units are dropped."""
_NO_NORM = "This run has no batch normalization."
_NO_DROPOUT = "This run has no dropout."

Updates = dict[gr.blocks.Block, Any]


class InsideTab:
    """The tab; it appears where it is made, in a `gr.Tab`.

    Args:
        store: The jobs.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._run = gr.Dropdown([], label="Finished run", elem_id="run")
        self._message = gr.Markdown(elem_id="inside-message")
        self._dropout_title = gr.Markdown()
        self._another = gr.Button(
            "Draw another mask", visible=False, size="sm", elem_id="another"
        )
        self._network = gr.Plot(show_label=False, visible=False, elem_id="network")
        self._norm_title = gr.Markdown()
        self._norm = gr.Plot(show_label=False, visible=False, elem_id="distributions")
        self._monitor_title = gr.Markdown()
        self._monitor = gr.Plot(show_label=False, visible=False, elem_id="statistics")
        self._run.change(
            self._show,
            self._run,
            [
                *(self._message, self._dropout_title, self._another, self._network),
                *(self._norm_title, self._norm, self._monitor_title, self._monitor),
            ],
            api_visibility="private",
        )
        self._another.click(
            self._draw_another,
            self._run,
            [self._message, self._network],
            api_visibility="private",
        )

    @property
    def choice(self) -> list[gr.components.Component]:
        """The components that `refresh` fills."""
        return [self._run]

    def refresh(self, run: int | None) -> Any:
        """Return the finished runs; the chosen one stays chosen."""
        jobs = self._store.page(State.SUCCEEDED, _MOST_JOBS, 0)
        choices = [(f"job {job.id}: {job.config.export_name}", job.id) for job in jobs]
        numbers = [job.id for job in jobs]
        return gr.Dropdown(
            choices, value=run if run in numbers else next(iter(numbers), None)
        )

    def _show(self, run: int | None) -> Updates:
        job = self._store.get(run) if run else None
        if job is None:
            return {self._message: "There is no finished run yet. Start a job."}
        try:
            return {
                self._message: "",
                **self._show_dropout(job),
                **self._show_norm(job),
                **self._show_monitor(job),
            }
        except (UserError, OSError, ValueError, tf.errors.OpError) as error:
            return {self._message: f"**Nothing to see.** {first_line(error)}"}

    def _show_dropout(self, job: Job) -> Updates:
        if not job.config.dropout_rate:
            return {
                self._dropout_title: _NO_DROPOUT,
                self._another: gr.Button(visible=False),
                self._network: gr.Plot(visible=False),
            }
        return {
            self._dropout_title: _DROPOUT,
            self._another: gr.Button(visible=True),
            self._network: gr.Plot(network(thinned(job)), visible=True),
        }

    def _show_norm(self, job: Job) -> Updates:
        layers = normalizations(job)
        if not layers:
            return {self._norm_title: _NO_NORM, self._norm: gr.Plot(visible=False)}
        return {
            self._norm_title: _NORM,
            self._norm: gr.Plot(distributions(layers), visible=True),
        }

    def _show_monitor(self, job: Job) -> Updates:
        figure = statistics(job.directory / files.MONITOR)
        if figure is None:
            title = _NOT_RECORDED if job.config.norm else ""
            return {self._monitor_title: title, self._monitor: gr.Plot(visible=False)}
        return {
            self._monitor_title: _MONITOR,
            self._monitor: gr.Plot(figure, visible=True),
        }

    def _draw_another(self, run: int) -> Updates:
        job = self._store.get(run)
        try:
            if job is None:
                raise UserError(f"There is no job {run}.")
            return {self._message: "", self._network: network(thinned(job))}
        except (UserError, OSError, ValueError, tf.errors.OpError) as error:
            return {self._message: f"**Nothing to see.** {first_line(error)}"}
