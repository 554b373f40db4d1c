"""The queue of jobs: its table, its runner and their directory."""

import re
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from service.jobs import removal
from service.jobs.gpus import Gpus
from service.jobs.paths import Roots
from service.jobs.removal import Needed, Retention
from service.jobs.runner import Runner
from service.jobs.search import Searches
from service.jobs.store import RUNS, Store
from service.jobs.trainers import LocalTrainers, Trainers
from service.log import log
from training.errors import UserError
from training.run.atomic import check_writable

_NUMBER = re.compile("[1-9][0-9]{,17}")  # of a job: the name of its directory


@dataclass(frozen=True)
class QueueConfig:
    """How jobs are run.

    Attributes:
        state_dir: Where jobs and runs are kept. One service at a time uses it.
        exports: Where jobs export their models to.
        data_roots: Where jobs may take data from.
        model_roots: Where the files of models lie that jobs may name.
        allow_downloads: Whether trainers may fetch datasets from other hosts.
        slots: How many jobs run at a time.
        retries: How often in a row a trainer may die without finishing an epoch and
            still be started again.
        stall_timeout: After how many seconds without progress a trainer is killed and
            started again; 0 for never.
        trainers: Where trainers run.
        gpus: What trainers get of the GPUs there.
        keep: How many versions of a model are kept that jobs have exported; None for
            all.
        keep_runs: How many ended jobs are kept; None for all.
    """

    state_dir: Path
    exports: Path
    data_roots: tuple[Path, ...] = ()
    model_roots: tuple[Path, ...] = ()
    allow_downloads: bool = False
    slots: int = 1
    retries: int = 3
    stall_timeout: float = 600.0
    trainers: Trainers = field(default_factory=LocalTrainers)
    gpus: Gpus = field(default_factory=Gpus)
    keep: int | None = None
    keep_runs: int | None = None


class Queue:
    """The jobs of a state directory. No other process uses it meanwhile.

    Args:
        config: How jobs are run.
        needed: Which versions of models are served, and stay.

    Attributes:
        state_dir: Where all is kept.
        gpus: What jobs can have of the GPUs.

    Raises:
        UserError: If the state directory cannot be used, or another service uses it.
    """

    def __init__(self, config: QueueConfig, needed: Needed = lambda model: ()) -> None:
        self.state_dir = config.state_dir
        self.gpus = config.gpus
        check_writable(config.state_dir, "--state-dir")
        self._lock = FileLock(config.state_dir / ".lock", timeout=0)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise UserError(
                f"Another service uses {config.state_dir}. Stop it, or give this one "
                "another --state-dir."
            ) from error
        try:
            self.store = Store(config.state_dir / "jobs.sqlite")
            # The runs of a lost table may still be here.
            self.store.count_on_from(_highest_number(config.state_dir / RUNS))
            removal.finish(self.store, config.state_dir / RUNS, config.exports)
        except sqlite3.DatabaseError as error:
            raise UserError(
                "`--state-dir` must hold the jobs of an earlier service, or nothing. "
                f"Received: {config.state_dir}: {error}."
            ) from error
        self.roots = Roots(
            runs=config.state_dir / RUNS,
            exports=config.exports,
            data=config.data_roots,
            models=config.model_roots,
            downloads=config.allow_downloads,
        )
        self.searches = Searches(self.store, config.state_dir / "searches.sqlite")
        self._runner = Runner(
            self.store,
            config.trainers,
            self.searches,
            config.gpus,
            Retention(
                self.store,
                config.exports,
                versions=config.keep,
                runs=config.keep_runs,
                needed=needed,
            ),
            slots=config.slots,
            retries=config.retries,
            stall_timeout=config.stall_timeout,
        )

    def start(self) -> None:
        """Run the jobs, also those that an earlier service has left."""
        if self.gpus.names:
            log(f"GPUs for jobs: {', '.join(self.gpus.names)}.")
        self._runner.start()

    def restarts(self) -> int:
        """Return how many trainers that died have been started again."""
        return self._runner.restarts

    def stop(self) -> None:
        """Stop the trainers and put their jobs back into the queue."""
        self._runner.stop()
        self.searches.close()
        self.store.close()
        self._lock.release()


def _highest_number(runs: Path) -> int:
    """Return the highest number of a job whose run is in a directory."""
    names = (path.name for path in runs.glob("*"))
    return max((int(name) for name in names if _NUMBER.fullmatch(name)), default=0)
