"""The runner with trainers that do nothing."""

import json
import signal
import sqlite3
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.app import Settings
from service.jobs import runner, stalls
from service.jobs.job_queue import Queue
from service.jobs.store import RESUMABLE, Job, State
from service.jobs.trainers import End
from tests.service.services import wait_until
from training.config import TrainConfig
from training.run.files import BEAT, LOG

DIED = (-signal.SIGKILL, -signal.SIGSEGV, 1, None)


class Trainers:
    """Trainers that end at once with a mistake; `starting` is called before."""

    def __init__(self, starting: Callable[[int], None]) -> None:
        self._starting = starting

    def start(self, directory: Path, *_: object) -> None:
        self._starting(int(directory.name))

    def end(self, directory: Path) -> End:
        return End(2)

    def stop(self, directory: Path) -> None:
        raise AssertionError

    def kill(self, directory: Path) -> None:
        raise AssertionError


class Manual:
    """Trainers that run until they are told how they have ended."""

    def __init__(self) -> None:
        self.running: dict[Path, End | None] = {}
        self.starts = 0
        self.stopped: list[Path] = []
        self.killed: list[Path] = []

    def start(self, directory: Path, *_: object) -> None:
        self.running[directory] = None
        self.starts += 1

    def end(self, directory: Path) -> End | None:
        return self.running[directory]

    def stop(self, directory: Path) -> None:
        self.stopped.append(directory)
        self.running[directory] = End(128 + signal.SIGTERM)

    def kill(self, directory: Path) -> None:
        self.killed.append(directory)
        self.running[directory] = End(-signal.SIGKILL)


@pytest.fixture(autouse=True)
def _in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_SECONDS_AFTER_AN_ERROR", 0.01)
    monkeypatch.setattr(runner, "_SECONDS_BETWEEN_LOOKS", 0.01)
    monkeypatch.setattr(runner, "_LONGEST_WAIT", 0.02)


def add(queue: Queue, priority: int = 0) -> Job:
    return queue.store.add(queue.roots.confine(TrainConfig()), priority)


def state(queue: Queue, job: Job) -> State:
    found = queue.store.get(job.id)
    assert found is not None
    return found.state


def message(queue: Queue, job: Job) -> str:
    found = queue.store.get(job.id)
    assert found is not None
    return found.message


@pytest.fixture
def trainers() -> Manual:
    return Manual()


@pytest.fixture
def queue(settings: Settings, trainers: Manual) -> Iterator[Queue]:
    queue = Queue(replace(settings.jobs, trainers=trainers, retries=2))
    queue.start()
    yield queue
    queue.stop()


@pytest.fixture
def running(queue: Queue, trainers: Manual) -> Job:
    job = add(queue)
    wait_until(lambda: job.directory in trainers.running)
    return job


def write_history(job: Job, epochs: int) -> None:
    rows = "".join(f"{epoch + 1},0.5\n" for epoch in range(epochs))
    (job.directory / "history.csv").write_text(f"epoch,loss\n{rows}")


def test_the_runner_starts_jobs_in_the_order_of_the_queue(settings: Settings) -> None:
    started: list[int] = []
    queue = Queue(replace(settings.jobs, trainers=Trainers(started.append)))
    for priority in (0, 5, 0, 1000, -1000, 5):
        add(queue, priority)
    queue.start()
    wait_until(lambda: queue.store.count(State.FAILED) == 6)
    queue.stop()
    assert started == [4, 2, 6, 1, 3, 5]


def test_a_job_that_is_cancelled_while_it_cannot_be_started_ends(
    settings: Settings,
) -> None:
    """And the queue goes on."""

    def starting(job: int) -> None:
        if job == 1:
            assert queue.store.cancel(job)
            raise OSError("no room")

    queue = Queue(replace(settings.jobs, trainers=Trainers(starting)))
    for _ in range(2):
        add(queue)
    queue.start()
    wait_until(lambda: queue.store.count(State.FAILED))
    (cancelled,) = queue.store.page(State.CANCELLED, 9, 0)
    queue.stop()
    assert cancelled.id == 1


def test_a_job_that_cannot_be_started_keeps_no_other_from_its_slot(
    settings: Settings,
) -> None:

    def starting(job: int) -> None:
        if job == 1:
            raise OSError("no room")

    queue = Queue(replace(settings.jobs, slots=2, trainers=Trainers(starting)))
    for _ in range(2):
        add(queue)
    queue.start()
    wait_until(lambda: queue.store.count(State.FAILED))
    (other,) = queue.store.page(State.FAILED, 9, 0)
    queue.stop()
    assert other.id == 2


@pytest.mark.parametrize(
    "error", [OSError("no room"), BlockingIOError(11, "no process"), ValueError("odd")]
)
def test_a_job_that_cannot_be_started_waits_and_then_fails(
    settings: Settings, error: Exception
) -> None:
    """With the only slot: the others run meanwhile, and its tries have an end."""
    tries: list[int] = []

    def starting(job: int) -> None:
        tries.append(job)
        if job <= 2:
            raise error

    config = replace(settings.jobs, retries=2, trainers=Trainers(starting))
    queue = Queue(config)
    jobs = [add(queue, priority) for priority in (9, 8, 0, 0)]
    queue.start()
    wait_until(lambda: queue.store.count(State.FAILED) == 4)
    messages = [message(queue, job) for job in jobs]
    queue.stop()
    assert (tries.count(1), tries.count(2)) == (3, 3)
    assert (tries.count(3), tries.count(4)) == (1, 1)
    said = f"It could not be started 3 times; the last time: {error}."
    assert messages[:2] == [said, said]


def test_each_wait_is_longer_than_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    waits = [runner._wait_before(attempt) for attempt in range(1, 7)]
    assert waits == [0, 1, 10, 100, 100, 100]


def test_a_trainer_that_dies_at_once_is_not_started_again_at_once(
    queue: Queue, trainers: Manual, running: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has killed it may last. One that had got on is started at once."""
    monkeypatch.setattr(runner, "_LONGEST_WAIT", 1e9)
    monkeypatch.setattr(runner, "_wait_before", lambda attempt: (attempt - 1) * 1e9)
    trainers.running[running.directory] = End(-signal.SIGKILL)
    wait_until(lambda: message(queue, running).startswith("The trainer died; waits"))
    assert (trainers.starts, state(queue, running)) == (1, State.RUNNING)
    write_history(running, 1)
    wait_until(lambda: trainers.starts == 1)
    assert queue.store.cancel(running.id)  # while it waits
    wait_until(lambda: state(queue, running) is State.CANCELLED)
    trainers.running.clear()
    assert queue.store.resume(running.id)
    wait_until(lambda: running.directory in trainers.running)
    write_history(running, 2)
    trainers.running[running.directory] = End(-signal.SIGKILL)
    wait_until(lambda: trainers.starts == 3)


def test_a_row_that_cannot_be_read_keeps_no_other_from_running(
    settings: Settings,
) -> None:
    started: list[int] = []
    queue = Queue(replace(settings.jobs, trainers=Trainers(started.append)))
    for priority in (0, 9, 0, 0):
        add(queue, priority)
    with sqlite3.connect(settings.jobs.state_dir / "jobs.sqlite") as table:
        table.execute("UPDATE job SET config = '{\"colour\": 1}' WHERE id = 2")
        table.execute("UPDATE job SET state = 'paused' WHERE id = 3")
    queue.start()
    wait_until(lambda: queue.store.count(State.FAILED) == 3)
    queue.stop()
    assert started == [1, 4]


def test_a_trainer_that_makes_no_progress_is_killed_and_started_again(
    settings: Settings, trainers: Manual, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that died; one that makes some is left alone."""
    monkeypatch.setattr(stalls, "_LONGEST_STEP", 1.0)
    config = replace(settings.jobs, trainers=trainers, slots=2, stall_timeout=0.3)
    queue = Queue(config)
    jobs = [add(queue), add(queue)]
    queue.start()
    try:
        wait_until(lambda: len(trainers.running) == 2)
        still, lively = (job.directory for job in jobs)

        def beat_until_killed() -> bool:
            (lively / BEAT).touch()
            return still in trainers.killed

        wait_until(beat_until_killed)
        wait_until(lambda: trainers.starts == 3)
        assert lively not in trainers.killed
        assert state(queue, jobs[0]) is State.RUNNING
        assert (still / LOG).read_text() == (
            "The trainer made no progress for 0.3 s; it is killed.\n"
            "The trainer died; it is started again.\n"
        )
    finally:
        queue.stop()


def test_interrupted_jobs_are_tried_until_the_table_takes_them(
    settings: Settings, trainers: Manual, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue(replace(settings.jobs, trainers=trainers))
    job = add(queue)
    queue.store.start(job, attempts=1, epochs=0)
    queue.store.end(job.id, State.INTERRUPTED)
    requeue, tries = queue.store.requeue_interrupted, []

    def busy() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise sqlite3.OperationalError("database is locked")
        requeue()

    monkeypatch.setattr(queue.store, "requeue_interrupted", busy)
    queue.start()
    wait_until(lambda: state(queue, job) is State.RUNNING)
    assert len(tries) == 3
    queue.stop()


def test_an_error_that_nobody_expected_is_logged_with_its_traceback(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    def starting(job: int) -> None:
        raise ArithmeticError("a surprise\u2028error: x")

    caplog.set_level("INFO", "uvicorn.error")
    queue = Queue(replace(settings.jobs, retries=0, trainers=Trainers(starting)))
    add(queue)
    queue.start()
    wait_until(lambda: queue.store.count(State.FAILED))
    queue.stop()
    (record,) = (each for each in caplog.records if each.levelname == "ERROR")
    assert record.getMessage() == (
        r"A job cannot go on: ArithmeticError: a surprise\u2028error: x"
    )
    assert record.exc_info is not None
    assert "starting" in traceback.format_tb(record.exc_info[2])[-1]


def test_a_trainer_finds_the_options_of_its_job(running: Job) -> None:
    text = (running.directory / "config.json").read_text()
    assert TrainConfig.model_validate_json(text) == running.config


@pytest.mark.parametrize("status", [2, 143, 130, -15, -2, -14])
def test_the_exit_status_says_why_a_trainer_ended(
    queue: Queue, trainers: Manual, running: Job, status: int
) -> None:
    (running.directory / LOG).write_text("Epoch 1/4\nerror: `--epochs` is odd.\n")
    trainers.running[running.directory] = End(status)
    wait_until(lambda: state(queue, running) is not State.RUNNING)
    assert (state(queue, running), message(queue, running)) == (
        (State.FAILED, "error: `--epochs` is odd.")
        if status == 2
        else (State.INTERRUPTED, "The trainer was told to stop.")
    )
    assert trainers.starts == 1


@pytest.mark.parametrize("status", DIED)
def test_a_trainer_that_died_is_started_again(
    queue: Queue, trainers: Manual, running: Job, status: int | None
) -> None:
    """At most twice here; then the job has failed, with the end of the log."""
    log = running.directory / LOG
    log.write_text("".join(f"line {number}\n" for number in range(20)))
    for starts in (2, 3):
        trainers.running[running.directory] = End(status)
        wait_until(lambda starts=starts: trainers.starts == starts)
        assert state(queue, running) is State.RUNNING
    trainers.running[running.directory] = End(status)
    wait_until(lambda: state(queue, running) is State.FAILED)
    assert (trainers.starts, queue.restarts()) == (3, 2)
    first, *lines = message(queue, running).splitlines()
    assert first == (
        "The trainer died 3 times without finishing an epoch. Its last lines:"
    )
    again = "The trainer died; it is started again."
    assert lines == [*(f"line {number}" for number in range(12, 20)), again, again]


def test_a_finished_epoch_sets_the_count_back(
    queue: Queue, trainers: Manual, running: Job
) -> None:
    for starts in range(2, 8):
        write_history(running, starts)
        trainers.running[running.directory] = End(None)
        wait_until(lambda starts=starts: trainers.starts == starts)
        assert state(queue, running) is State.RUNNING


def test_a_job_with_a_result_has_succeeded_however_its_trainer_ended(
    queue: Queue, trainers: Manual, running: Job
) -> None:
    scores = dict.fromkeys(("accuracy", "loss"), 0.5)
    result = {
        **{"directory": str(running.directory), "export": str(running.directory)},
        **{"epochs": 4, "training_seconds": 2.5},
        "metrics": dict.fromkeys(("train", "validation", "test"), scores),
    }
    (running.directory / "result.json").write_text(json.dumps(result))
    trainers.running[running.directory] = End(-signal.SIGKILL)
    wait_until(lambda: state(queue, running) is State.SUCCEEDED)
    assert message(queue, running) == ""


def test_a_running_job_is_cancelled_by_stopping_its_trainer(
    queue: Queue, trainers: Manual, running: Job
) -> None:
    other = add(queue)
    assert state(queue, other) is State.QUEUED
    assert queue.store.cancel(running.id)
    wait_until(lambda: state(queue, running) is State.CANCELLED)
    assert trainers.stopped == [running.directory]
    # The slot is free for the next one; the first one can go on after that.
    wait_until(lambda: other.directory in trainers.running)
    assert queue.store.requeue(running.id, RESUMABLE)
    trainers.running[other.directory] = End(2)
    wait_until(lambda: state(queue, running) is State.RUNNING)


def test_a_queue_that_stops_puts_its_jobs_back(
    settings: Settings, trainers: Manual
) -> None:
    """Those that end meanwhile have ended; interrupted ones go on at its next start."""
    config = replace(settings.jobs, trainers=trainers, slots=3)
    queue = Queue(config)
    jobs = [add(queue) for _ in range(3)]
    queue.start()
    wait_until(lambda: len(trainers.running) == 3)
    trainers.running[jobs[2].directory] = End(128 + signal.SIGINT)
    wait_until(lambda: state(queue, jobs[2]) is State.INTERRUPTED)
    queue.store.cancel(jobs[1].id)
    queue.stop()
    assert jobs[0].directory in trainers.stopped
    queue = Queue(config)
    try:
        assert [state(queue, job) for job in jobs] == [
            *(State.QUEUED, State.CANCELLED, State.INTERRUPTED)
        ]
    finally:
        queue.start()
        wait_until(lambda: state(queue, jobs[2]) is State.RUNNING)
        queue.stop()
    assert trainers.starts == 5
