"""Searches: jobs whose values Optuna draws, one when a slot is free.

The table of jobs says which trials there are and how they have ended. Each of them is a
job from the submission on, so none can be lost or run twice. What Optuna knows follows.
"""

import contextlib
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from service.jobs.plan import Plan
from service.jobs.rows import Job
from service.jobs.store import Store
from service.log import log_error
from training.run.files import HISTORY

if TYPE_CHECKING:
    from service.jobs.studies import Studies


class Searches:
    """The searches among the jobs of a store.

    Args:
        store: The jobs.
        path: The file of Optuna's studies, which is made for the first search.

    Methods raise `OSError` if the file cannot be used now.
    """

    def __init__(self, store: Store, path: Path) -> None:
        self._store = store
        self._path = path
        self._lock = threading.Lock()
        self._opened: Studies | None = None
        self._seen: dict[int, int] = {}  # by job: when its history was written

    def put_right(self) -> None:
        """Bring the studies up to the table: a service may have been killed between."""
        if not self._path.exists() or find_spec("optuna") is None:
            return
        with self._studies() as studies:
            searches = studies.searches()
        for search in searches:
            try:
                self._put_right(search)
            except OSError as error:  # the others can be put right
                log_error(f"Search {search} is left for now.", error)

    def _put_right(self, search: int) -> None:
        plan, jobs = self._plan(search), self._store.of_sweep(search)
        with self._studies() as studies:
            if plan is None:
                studies.delete(search)
            else:
                studies.settle(search, plan, jobs)

    def draw(self, job: Job) -> Job:
        """Return a job that is about to be started with its values.

        Those of a trial at its first start are drawn, from what the trials before have
        reached.
        """
        if job.is_drawn:
            return job
        plan = self._plan(job.sweep)
        if plan is None or job.sweep is None or job.trial is None:
            raise OSError("what its search tries is lost")
        jobs = self._store.of_sweep(job.sweep)
        with self._studies() as studies:
            studies.settle(job.sweep, plan, jobs)
            drawn = studies.draw(job.sweep, plan, job.trial, job.id)
        config = plan.config_with(drawn, job.config, job.trial)
        return self._store.draw(job, config)

    def look(self, job: Job) -> None:
        """Look at a running job after each epoch; end it if it is a bad trial."""
        if job.sweep is None or job.trial is None:
            return
        written = _time(job.directory / HISTORY)
        if written == self._seen.get(job.id, 0):
            return
        with self._studies() as studies:
            complaint = studies.complaint(job.sweep, job)
        if complaint:
            self._store.prune(job, complaint)
        self._seen[job.id] = written

    def tell(self, job: Job) -> None:
        """Tell Optuna that a job has ended."""
        self._seen.pop(job.id, None)
        if job.sweep is None or job.trial is None or not self._path.exists():
            return
        plan, jobs = self._plan(job.sweep), self._store.of_sweep(job.sweep)
        if plan is not None:
            with self._studies() as studies:
                studies.settle(job.sweep, plan, jobs)

    def forget(self, search: int) -> None:
        """Remove the study of a search that is not in the table any more."""
        if not self._path.exists() or find_spec("optuna") is None:
            return
        try:
            with self._studies() as studies:
                studies.delete(search)
        except OSError as error:  # the next start removes it
            log_error(f"The study of search {search} is left for now.", error)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()

    def _plan(self, search: int | None) -> Plan | None:
        text = None if search is None else self._store.plan(search)
        try:
            return None if text is None else Plan.model_validate_json(text)
        except ValidationError as error:
            raise OSError(f"The plan of search {search} is damaged.") from error

    @contextlib.contextmanager
    def _studies(self) -> Iterator["Studies"]:
        with self._lock:
            try:
                if self._opened is None:
                    from service.jobs.studies import Studies

                    self._opened = Studies(self._path)
                yield self._opened
            except Exception as error:  # Optuna's, SQLAlchemy's, of many lines
                reason = str(error.__cause__ or error).partition("\n")[0]
                said = f"{self._path} cannot be used now: {reason}"
                raise OSError(said) from error


def _time(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
