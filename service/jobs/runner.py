"""The runner: takes jobs from the queue and sees each of them to its end."""

import contextlib
import functools
import sqlite3
import threading
import time
from collections.abc import Callable

from service.jobs.endings import state_after
from service.jobs.gpus import Gpus
from service.jobs.removal import Retention
from service.jobs.rows import Job, State
from service.jobs.search import Searches
from service.jobs.stalls import Stalls
from service.jobs.store import Store
from service.jobs.trainers import Trainers
from service.log import log_error, log_refusal
from training.run.files import LOG, epochs_finished, last_lines, write_config

_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_AFTER_AN_ERROR = 5.0
_SECONDS_TO_STOP = 30.0
_LONGEST_WAIT = 100.0  # seconds before a start
_LINES_OF_THE_LOG = 10


class Runner:
    """Run jobs in a thread, as many at a time as there are slots.

    At each look it reads the store and the trainers anew. All that it remembers is how
    long something has to wait. So it may be killed between any two lines and started
    again.

    Args:
        store: The jobs.
        trainers: Where the jobs run.
        searches: What draws the values of trials, and finds bad ones.
        gpus: What the jobs get of the GPUs there.
        retention: What is kept of jobs that have ended.
        slots: How many jobs run at a time.
        retries: How often in a row a trainer may die without finishing an epoch, or
            not be started, and still be started again. Each time the wait is longer.
        stall_timeout: The seconds without progress after which a trainer is killed; 0
            for no limit.

    Attributes:
        restarts: How many trainers that died have been started again.
    """

    def __init__(
        self,
        store: Store,
        trainers: Trainers,
        searches: Searches,
        gpus: Gpus,
        retention: Retention,
        *,
        slots: int,
        retries: int,
        stall_timeout: float,
    ) -> None:
        self._store = store
        self._trainers = trainers
        self._searches = searches
        self._gpus = gpus
        self._retention = retention
        self._slots = slots
        self._retries = retries
        self._stalls = Stalls(stall_timeout)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="runner")
        self._complaint = ""
        self.restarts = 0
        self._died: dict[int, float] = {}  # when they are started again
        self._not_started: dict[int, tuple[int, float]] = {}  # how often, until when

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
            log_error("Trainers may be left running.", error)

    def _run(self) -> None:
        is_requeued = False
        self._try(self._searches.put_right)
        while not self._stopping.is_set():
            is_requeued = is_requeued or self._try(self._store.requeue_interrupted)
            went_well = self._try(self._look)
            pause = _SECONDS_BETWEEN_LOOKS if went_well else _SECONDS_AFTER_AN_ERROR
            self._stopping.wait(pause)

    def _look(self) -> None:
        """Look after the running jobs and fill the free slots."""
        for job in self._store.running():
            self._try(functools.partial(self._look_after, job))
        self._fill_slots()
        self._try(self._retention.look)

    def _fill_slots(self) -> None:
        """Start the next jobs; one that waits for GPUs is overtaken by none."""
        free = self._slots - len(self._store.running())
        now = time.monotonic()
        waiting = [job for job, (_, until) in self._not_started.items() if now < until]
        went_well = True
        for job in self._store.next(max(free, 0), waiting):
            if said := self._what_it_waits_for(job):
                if said != job.message:
                    self._store.say(job, said)
                break
            start = functools.partial(self._start, job, job.attempts + 1)
            went_well = self._try(start) and went_well
        if not went_well:
            self._stopping.wait(_SECONDS_AFTER_AN_ERROR)

    def _what_it_waits_for(self, job: Job) -> str:
        """Return that other jobs have the GPUs that a job needs, or nothing."""
        is_hopeless = self._gpus.complaint(job.gpus)  # it fails when it is started
        if is_hopeless or self._gpus.choose(job, self._store.running()) is not None:
            return ""
        return f"Waits for GPUs: {self._gpus.number(job.gpus)}."

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
                log_error(f"A job cannot go on: {complaint}", error)
            self._complaint = complaint
            return False
        return True

    def _look_after(self, job: Job) -> None:
        end = self._trainers.end(job.directory)
        if end is None:
            if job.state is State.CANCELLING:
                self._trainers.stop(job.directory)
            elif self._stalls.has_stalled(job):
                self._kill(job)
            else:
                self._searches.look(job)
            return
        self._stalls.forget(job)
        state, message = state_after(job, end)
        if state is not State.RUNNING:
            self._died.pop(job.id, None)
            self._end(job, state, message)
            return
        if not job.is_drawn:  # killed while its values were drawn: there was no trainer
            self._store.requeue(job.id, [State.RUNNING], attempts=job.attempts - 1)
            return
        got_on = epochs_finished(job.directory) > job.epochs
        attempts = 1 if got_on else job.attempts + 1
        if attempts <= self._retries + 1:
            self._start_again(job, attempts)
            return
        lines = "\n".join(last_lines(job.directory, _LINES_OF_THE_LOG))
        message = f"The trainer died {job.attempts} times without finishing an epoch."
        self._end(job, State.FAILED, f"{message} Its last lines:\n{lines}")

    def _end(self, job: Job, state: State, message: str) -> None:
        self._store.end(job.id, state, message)
        if state is State.SUCCEEDED:
            self._retention.exported(job)
        self._try(functools.partial(self._searches.tell, job))

    def _kill(self, job: Job) -> None:
        """End a trainer that does nothing, so that it counts as one that died."""
        said = f"The trainer made no progress for {self._stalls.timeout:g} s"
        log_refusal(f"Job {job.id}: {said}; it is killed.")
        _add_to_log(job, f"{said}; it is killed.")
        self._trainers.kill(job.directory)
        self._stalls.forget(job)

    def _start_again(self, job: Job, attempts: int) -> None:
        """Start a trainer that died, at once only if it had got on.

        What has killed it may last, as a lack of memory does.
        """
        now = time.monotonic()
        if job.id not in self._died:
            wait = _wait_before(attempts)
            self._died[job.id] = now + wait
            said = "The trainer died; it is started again."
            log_refusal(f"Job {job.id}: the trainer died; wait of {wait:g} s.")
            if wait:
                self._store.say(job, f"The trainer died; waits for {wait:g} s.")
            _add_to_log(job, said)
        if now < self._died[job.id]:
            return
        del self._died[job.id]
        if said := self._what_it_waits_for(job):  # this service has other GPUs
            self._store.requeue(job.id, [State.RUNNING], said, attempts - 1)
            return
        self._start(job, attempts)
        self.restarts += 1

    def _start(self, job: Job, attempts: int) -> None:
        epochs = epochs_finished(job.directory)
        gpus = self._gpus.choose(job, self._store.running()) or ()
        if not self._store.start(job, attempts=attempts, epochs=epochs, devices=gpus):
            return
        complaint = self._gpus.complaint(job.gpus) if job.is_readable else job.message
        if complaint:
            self._end(job, State.FAILED, complaint)
            return
        try:
            job = self._searches.draw(job)
            job.directory.mkdir(parents=True, exist_ok=True)
            write_config(job.directory, job.config)
            number, variables = self._gpus.number(job.gpus), self._gpus.variables(gpus)
            self._trainers.start(job.directory, number, variables)
        except Exception as error:
            self._wait_or_fail(job, error)
            raise
        self._not_started.pop(job.id, None)

    def _wait_or_fail(self, job: Job, error: Exception) -> None:
        """Leave the slot of a job that cannot be started to the others."""
        times = self._not_started.pop(job.id, (0, 0.0))[0] + 1
        reason = str(error) or type(error).__name__
        if times > self._retries:
            message = f"It could not be started {times} times; the last time: {reason}."
            self._end(job, State.FAILED, message)
            return
        until = time.monotonic() + _wait_before(times + 1)
        self._not_started[job.id] = times, until
        message = f"Waits, because: {reason}."
        self._store.requeue(job.id, [State.RUNNING], message, job.attempts)

    def _stop_trainers(self) -> bool:
        """Stop the trainers of running jobs; return whether any are left."""
        is_left = False
        for job in self._store.running():
            end = self._trainers.end(job.directory)
            if end is None:
                is_left = True
                self._try(functools.partial(self._trainers.stop, job.directory))
                continue
            state, message = state_after(job, end)
            if state in (State.SUCCEEDED, State.CANCELLED, State.FAILED):
                self._store.end(job.id, state, message)
            else:
                self._store.requeue(job.id, [State.RUNNING])
        return is_left


def _wait_before(attempt: int) -> float:
    """Return the seconds to wait before an attempt: 0, 1, 10, 100, 100, ..."""
    return 0.0 if attempt == 1 else min(10.0 ** (attempt - 2), _LONGEST_WAIT)


def _add_to_log(job: Job, line: str) -> None:
    with (
        contextlib.suppress(OSError),  # a full disk; the service's log has it, too
        (job.directory / LOG).open("a", encoding="utf-8") as log,
    ):
        log.write(f"{line}\n")
