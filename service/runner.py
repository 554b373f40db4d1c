"""The runner: takes jobs from the queue and sees each of them to its end."""

import logging
import signal
import sqlite3
import threading

from service.runs import LOG, epochs_finished, last_lines, result
from service.store import Job, State, Store
from service.trainers import Trainers
from training.files import write_atomically

_SECONDS_BETWEEN_LOOKS = 0.2
_LINES_OF_THE_LOG = 10
_MISTAKE = 2  # train.py's exit status for what the user must put right
# By train.py, or before it has taken over the signals.
_INTERRUPTED = (
    128 + signal.SIGTERM,
    128 + signal.SIGINT,
    -signal.SIGTERM,
    -signal.SIGINT,
)

_logger = logging.getLogger("uvicorn.error")


class Runner:
    """Runs jobs in a thread of its own, as many at a time as there are slots.

    What it knows it reads anew from the store and the trainers at each look, so that
    it may be killed between any two lines and started again.

    Args:
        store: The jobs.
        trainers: Where they run.
        slots: How many run at a time.
        retries: How often a trainer that died is started again before its job has
            failed. An epoch that was finished meanwhile sets the count back.
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

    def start(self) -> None:
        """Goes on with what an earlier service has left."""
        self._store.requeue_interrupted()
        self._thread.start()

    def stop(self) -> None:
        """Stops the trainers and puts their jobs back in the queue."""
        self._stopping.set()
        self._thread.join()
        while running := self._store.running():
            for job in running:
                if self._trainers.end(job.directory) is None:
                    self._trainers.stop(job.directory)
                elif result(job.directory):
                    self._store.end(job.id, State.SUCCEEDED)
                elif job.cancelling:
                    self._store.end(job.id, State.CANCELLED)
                else:
                    self._store.requeue(job.id, [State.RUNNING])
            threading.Event().wait(_SECONDS_BETWEEN_LOOKS)

    def _run(self) -> None:
        complaint = ""
        while not self._stopping.is_set():
            try:
                self.look()
                complaint = ""
            except (OSError, sqlite3.Error) as error:
                # A full disk, say: look again until there is room.
                if str(error) != complaint:
                    complaint = str(error)
                    _logger.error("The jobs cannot go on: %s", complaint)
            self._stopping.wait(_SECONDS_BETWEEN_LOOKS)

    def look(self) -> None:
        """Looks after the running jobs and fills the free slots."""
        for job in self._store.running():
            self._look_after(job)
        free = self._slots - len(self._store.running())
        for job in self._store.next(max(free, 0)):
            self._start(job, attempts=1)

    def _look_after(self, job: Job) -> None:
        end = self._trainers.end(job.directory)
        if end is None:
            if job.cancelling:
                self._trainers.stop(job.directory)
            return
        got_on = epochs_finished(job.directory) > job.epochs
        attempts = 1 if got_on else job.attempts + 1
        if result(job.directory):
            self._store.end(job.id, State.SUCCEEDED)
        elif job.cancelling:
            self._store.end(job.id, State.CANCELLED)
        elif end.status in _INTERRUPTED:
            self._store.end(job.id, State.INTERRUPTED, "The trainer was told to stop.")
        elif end.status == _MISTAKE:
            lines = last_lines(job.directory, 1)
            message = lines[0] if lines else f"{job.directory} has been removed."
            self._store.end(job.id, State.FAILED, message)
        elif attempts > self._retries + 1:
            log = "\n".join(last_lines(job.directory, _LINES_OF_THE_LOG))
            message = (
                f"The trainer died {job.attempts} times without finishing an epoch."
            )
            self._store.end(job.id, State.FAILED, f"{message} Its last lines:\n{log}")
        else:
            self._start(job, attempts)

    def _start(self, job: Job, attempts: int) -> None:
        epochs = epochs_finished(job.directory)
        if not self._store.start(job, attempts=attempts, epochs=epochs):
            return
        try:
            job.directory.mkdir(parents=True, exist_ok=True)
            config = job.config.model_dump_json(indent=2) + "\n"
            write_atomically(job.directory / "config.json", config)
            if job.state is State.RUNNING:
                with (job.directory / LOG).open("a", encoding="utf-8") as log:
                    log.write("The trainer died; it is started again.\n")
            self._trainers.start(job.directory)
        except OSError as error:
            self._store.end(job.id, State.FAILED, f"The run could not start: {error}.")
