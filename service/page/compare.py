"""Jobs side by side: their validation curves, and the options that differ."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import gradio as gr

from service.jobs.store import Job, Store
from service.page.curves import comparison
from training.run.files import history, validation

_ALWAYS_DIFFERENT = {"name", "run_dir", "export_dir"}

Updates = dict[gr.blocks.Block, Any]


class Comparison:
    """The comparison of jobs; it appears where it is made, in a `gr.Blocks`.

    Args:
        store: The jobs.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.chosen = gr.Dropdown(
            [],
            multiselect=True,
            label="Sweeps and jobs",
            elem_id="compared",
        )
        self._plot = gr.Plot(show_label=False, elem_id="comparison")
        self._table = gr.Dataframe(
            label="What differs between them, the best first",
            interactive=False,
            elem_id="comparison-table",
        )
        self.outputs = [self.chosen, self._plot, self._table]

    def look(
        self, jobs: Sequence[Job], chosen: Sequence[str]
    ) -> tuple[Hashable, Callable[[], Updates]]:
        """Return what the comparison depends on, and a function that makes it.

        Args:
            jobs: The jobs that may be chosen.
            chosen: The jobs and sweeps that have been chosen.
        """
        sweeps = sorted({job.sweep for job in jobs if job.sweep}, reverse=True)
        choices = [
            *((_label(self._store, sweep), f"sweep {sweep}") for sweep in sweeps),
            *((f"job {j.id}: {j.config.export_name}", f"job {j.id}") for j in jobs),
        ]
        compared = self._jobs(chosen)
        histories = [history(job.directory) for job in compared]
        lengths = [len(epochs) for epochs in histories]
        key = (*choices, *chosen, *lengths)

        def update() -> Updates:
            values = [_differing(compared, job) for job in compared]
            labels = [
                ", ".join([f"job {job.id}", *(f"{n} {v}" for n, v in value.items())])
                for job, value in zip(compared, values, strict=True)
            ]
            epochs = max((job.config.epochs for job in compared), default=1)
            return {
                self.chosen: gr.Dropdown(choices=choices),
                self._plot: comparison(
                    dict(zip(labels, histories, strict=True)), epochs
                ),
                self._table: _table(compared, values, histories),
            }

        return key, update

    def _jobs(self, chosen: Sequence[str]) -> list[Job]:
        found: dict[int, Job] = {}
        for choice in chosen:
            kind, number = choice.split()
            jobs = (
                self._store.of_sweep(int(number))
                if kind == "sweep"
                else [self._store.get(int(number))]
            )
            found |= {job.id: job for job in jobs if job}
        return list(found.values())


def _label(store: Store, sweep: int) -> str:
    kind = "search" if store.plan(sweep) else "sweep"
    return f"{kind} {sweep}: {', '.join(store.sweep_fields(sweep) or [])}"


def _differing(jobs: Sequence[Job], job: Job) -> dict[str, Any]:
    """Return a job's values of the options that are not the same in all jobs."""
    configs = [other.config.model_dump(exclude=_ALWAYS_DIFFERENT) for other in jobs]
    own = job.config.model_dump(exclude=_ALWAYS_DIFFERENT)
    first = configs[0]
    return {
        name: value if job.is_drawn else "not drawn yet"
        for name, value in own.items()
        if any(config[name] != first[name] for config in configs)
    }


def _table(
    jobs: Sequence[Job],
    values: Sequence[dict[str, Any]],
    histories: Sequence[Sequence[dict[str, float]]],
) -> dict[str, list[Any]]:
    rows = []
    for job, value, epochs in zip(jobs, values, histories, strict=True):
        reached = validation(job.directory)
        accuracy = reached.accuracy if reached else 0.0
        measures = [f"{reached.loss:.4f}", f"{accuracy:.2%}"] if reached else ["", ""]
        cells = [job.id, *map(str, value.values()), len(epochs), *measures]
        rows.append((accuracy, cells))
    rows.sort(key=lambda row: -row[0])
    fields = list(values[0]) if values else []
    return {
        "headers": ["job", *fields, "epochs", "validation loss", "validation accuracy"],
        "data": [cells for _, cells in rows],
    }
