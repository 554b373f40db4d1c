"""The runner: takes jobs from the queue and sees each of them to its end."""

import functools
import logging
import signal
import sqlite3
import threading
import time
from collections.abc import Callable

from service.jobs.store import Job, State, Store
from service.jobs.trainers import End, Trainers
from training.run.files import LOG, epochs_finished, last_lines, result, write_config

_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_AFTER_AN_ERROR = 5.0
_SECONDS_TO_STOP = 30.0
_LINES_OF_THE_LOG = 10
_MISTAKE = 2  # train.py's exit status for what the user must put right
# train.py's own; before it handles signals; if it did not end in time.
_INTERRUPTED = (
    *(128 + signal.SIGTERM, 128 + signal.SIGINT),
    *(-signal.SIGTERM, -signal.SIGINT),
    -signal.SIGALRM,
)

_logger = logging.getLogger("uvicorn.error")


class Runner:
    """Run jobs in a thread, as many at a time as there are slots.

    The runner remembers nothing. At each look it reads the store and the trainers
    anew, so it may be killed between any two lines and started again.

    Args:
        store: The jobs.
        trainers: Where the jobs run.
        slots: How many jobs run at a time.
        retries: How often in a row a trainer may die without finishing an epoch and
            still be started again.
    """

    def __init__(
        self, store: Store, trainers: Trainers, *, slots: int, retries: int
    ) -> None:
        self._store = store
        self._trainers = trainers
        self._slots = slots
        self._retries = retries
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="runner")
        self._complaint = ""

    def start(self) -> None:
        """Start the thread. It goes on with what an earlier service has left."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the trainers and put their jobs back in the queue."""
        self._stopping.set()
        self._thread.join()
        deadline = time.monotonic() + _SECONDS_TO_STOP
        try:
            while self._stop_trainers() and time.monotonic() < deadline:
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        except (OSError, sqlite3.DatabaseError) as error:
            # The next service adopts those that are left.
            _logger.error("Trainers may be left running: %s", error)

    def _run(self) -> None:
        self._try(self._store.requeue_interrupted)
        while not self._stopping.is_set():
            went_well = self._try(self._look)
            pause = _SECONDS_BETWEEN_LOOKS if went_well else _SECONDS_AFTER_AN_ERROR
            self._stopping.wait(pause)

    def _look(self) -> None:
        """Look after the running jobs and fill the free slots."""
        for job in self._store.running():
            self._try(functools.partial(self._look_after, job))
        free = self._slots - len(self._store.running())
        started = [
            self._try(functools.partial(self._start, job, attempts=1))
            for job in self._store.next(max(free, 0))
        ]
        if not all(started):
            self._stopping.wait(_SECONDS_AFTER_AN_ERROR)

    def _try(self, action: Callable[[], None]) -> bool:
        """Run an action; return whether it went well.

        Any error is logged once: the disk may be full, a file may not be readable. The
        other jobs go on, and the action is tried again later.
        """
        try:
            action()
        except Exception as error:
            complaint = f"{type(error).__name__}: {error}"
            if complaint != self._complaint:
                _logger.error("A job cannot go on: %s", complaint)
            self._complaint = complaint
            return False
        return True

    def _look_after(self, job: Job) -> None:
        end = self._trainers.end(job.directory)
        if end is None:
            if job.cancelling:
                self._trainers.stop(job.directory)
            return
        state, message = _state_after(job, end)
        if state is not State.RUNNING:
            self._store.end(job.id, state, message)
            return
        got_on = epochs_finished(job.directory) > job.epochs
        attempts = 1 if got_on else job.attempts + 1
        if attempts <= self._retries + 1:
            self._start(job, attempts)
            return
        log = "\n".join(last_lines(job.directory, _LINES_OF_THE_LOG))
        message = f"The trainer died {job.attempts} times without finishing an epoch."
        self._store.end(job.id, State.FAILED, f"{message} Its last lines:\n{log}")

    def _start(self, job: Job, attempts: int) -> None:
        epochs = epochs_finished(job.directory)
        if not self._store.start(job, attempts=attempts, epochs=epochs):
            return
        try:
            job.directory.mkdir(parents=True, exist_ok=True)
            write_config(job.directory, job.config)
            if job.state is State.RUNNING:
                with (job.directory / LOG).open("a", encoding="utf-8") as log:
                    log.write("The trainer died; it is started again.\n")
            self._trainers.start(job.directory)
        except OSError as error:
            self._store.requeue(job.id, [State.RUNNING], f"Waits, because: {error}.")
            raise

    def _stop_trainers(self) -> bool:
        """Stop the trainers of running jobs; return whether any are left."""
        is_left = False
        for job in self._store.running():
            end = self._trainers.end(job.directory)
            if end is None:
                is_left = True
                self._try(functools.partial(self._trainers.stop, job.directory))
                continue
            state, message = _state_after(job, end)
            if state in (State.SUCCEEDED, State.CANCELLED, State.FAILED):
                self._store.end(job.id, state, message)
            else:
                self._store.requeue(job.id, [State.RUNNING])
        return is_left


def _state_after(job: Job, end: End) -> tuple[State, str]:
    """Return the state that a trainer's end leads to: RUNNING if it only died."""
    if result(job.directory):
        return State.SUCCEEDED, ""
    if job.cancelling:
        return State.CANCELLED, ""
    if end.status in _INTERRUPTED:
        return State.INTERRUPTED, "The trainer was told to stop."
    if end.status == _MISTAKE:
        lines = last_lines(job.directory, 1)
        return State.FAILED, lines[0] if lines else f"{job.directory} has been removed."
    return State.RUNNING, ""
