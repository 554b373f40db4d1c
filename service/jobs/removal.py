"""Remove what is no longer kept: runs with their jobs, and versions of models.

Before anything is removed it gets another name, so that a half-removed one is never
read. What a process that was killed has left is removed by the next service.
"""

import contextlib
import shutil
import time
from collections.abc import Callable, Collection
from pathlib import Path

from service.jobs.rows import Job, State
from service.jobs.store import MOST_JOBS, Store
from service.log import log, log_error
from training.run.claim import known_run_id
from training.run.files import model_card

_LEFT = ".removed-"  # before the name of what is being removed
_SECONDS_BETWEEN_LOOKS = 1.0

Needed = Callable[[Path], Collection[int] | None]
"""Return the versions in a model's directory that are served; None: not known yet."""


def delete(store: Store, job: Job) -> bool:
    """Forget a job and remove its run if the job has ended; return whether it had."""
    if not store.delete(job.id, lambda: _rename_run(job)):
        return False
    shutil.rmtree(_left(job.directory), ignore_errors=True)
    return True


def delete_sweep(store: Store, sweep: int) -> list[Job]:
    """Forget a sweep and remove its runs if all its jobs have ended.

    Returns:
        The jobs that have not ended.
    """
    jobs = store.of_sweep(sweep)
    going_on = store.delete_sweep(sweep, lambda: [*map(_rename_run, jobs)])
    if not going_on:
        for job in jobs:
            shutil.rmtree(_left(job.directory), ignore_errors=True)
    return going_on


def _rename_run(job: Job) -> None:
    new = _left(job.directory)
    shutil.rmtree(new, ignore_errors=True)
    with contextlib.suppress(OSError):  # there is no run
        job.directory.rename(new)


def finish(store: Store, runs: Path, exports: Path) -> None:
    """Remove what an earlier service began to remove."""
    for path in runs.glob(f"{_LEFT}*"):
        name = path.name.removeprefix(_LEFT)
        # It was killed before the table had forgotten the job.
        if name.isdecimal() and not (runs / name).exists():
            store.delete(int(name))
        shutil.rmtree(path, ignore_errors=True)
    for path in exports.glob(f"*/{_LEFT}*"):
        shutil.rmtree(path, ignore_errors=True)


class Retention:
    """Keep so many versions of each exported model, and so many ended jobs.

    Args:
        store: The jobs.
        exports: The directory that they export their models to.
        versions: How many of the newest versions of a model are kept; None for all.
        runs: How many of the jobs that ended last are kept; None for all.
        needed: The versions that must stay beside them.
    """

    def __init__(
        self,
        store: Store,
        exports: Path,
        *,
        versions: int | None,
        runs: int | None,
        needed: Needed,
    ) -> None:
        self._store = store
        self._exports = exports
        self._versions = versions
        self._runs = runs
        self._needed = needed
        self._exported: set[str] | None = None  # models that may have too many
        self._next = 0.0

    def exported(self, job: Job) -> None:
        """Look at the versions of the model that a job has exported."""
        if self._exported is not None:
            self._exported.add(job.config.export_name)

    def look(self) -> None:
        """Remove what may be removed now."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _SECONDS_BETWEEN_LOOKS
        if self._versions is not None:
            self._remove_versions(self._versions)
        if self._runs is not None:
            for job in self._store.superseded(self._runs):
                delete(self._store, job)

    def _remove_versions(self, kept: int) -> None:
        if self._exported is None:  # an earlier service may have been killed before
            jobs = self._store.page(State.SUCCEEDED, MOST_JOBS, 0)
            self._exported = {job.config.export_name for job in jobs}
        for name in sorted(self._exported):
            try:
                is_done = self._remove_versions_of(self._exports / name, kept)
            except OSError as error:
                log_error(f"Old versions of {name} stay until its next export.", error)
                is_done = True
            if is_done:
                self._exported.discard(name)

    def _remove_versions_of(self, model: Path, kept: int) -> bool:
        """Remove old versions; return False if some may follow later."""
        numbers = [p.name for p in model.glob("[1-9]*") if p.name.isdecimal()]
        old = sorted(map(int, filter(str.isascii, numbers)))[:-kept]
        needed = self._needed(model) if old else ()
        if needed is None:
            return False
        runs = {known_run_id(job.directory) for job in self._store.running()}
        is_done = True
        for number in sorted({*old} - {*needed}):
            version = model / str(number)
            card = model_card(version)
            if version.is_symlink() or card is None or card.run is None:
                continue  # somebody else has put it there
            if card.run in runs:  # its trainer still reports on it
                is_done = False
                continue
            _remove(version)
            log(f"Version {number} of {model.name} is removed.")
        return is_done


def _remove(directory: Path) -> None:
    new = _left(directory)
    shutil.rmtree(new, ignore_errors=True)
    directory.rename(new)
    shutil.rmtree(new, ignore_errors=True)


def _left(directory: Path) -> Path:
    return directory.with_name(f"{_LEFT}{directory.name}")
