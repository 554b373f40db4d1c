"""The runner with trainers that do nothing."""

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.app import Settings
from service.jobs import runner
from service.jobs.job_queue import Queue
from service.jobs.store import RESUMABLE, Job, State
from service.jobs.trainers import End
from tests.service.services import wait_until
from training.config import TrainConfig
from training.run.files import LOG

DIED = (-signal.SIGKILL, -signal.SIGSEGV, 1, None)


class Trainers:
    """Trainers that end at once with a mistake; `starting` is called before."""

    def __init__(self, starting: Callable[[int], None]) -> None:
        self._starting = starting

    def start(self, directory: Path) -> None:
        self._starting(int(directory.name))

    def end(self, directory: Path) -> End:
        return End(2)

    def stop(self, directory: Path) -> None:
        raise AssertionError


class Manual:
    """Trainers that run until they are told how they have ended."""

    def __init__(self) -> None:
        self.running: dict[Path, End | None] = {}
        self.starts = 0
        self.stopped: list[Path] = []

    def start(self, directory: Path) -> None:
        self.running[directory] = None
        self.starts += 1

    def end(self, directory: Path) -> End | None:
        return self.running[directory]

    def stop(self, directory: Path) -> None:
        self.stopped.append(directory)
        self.running[directory] = End(128 + signal.SIGTERM)


@pytest.fixture(autouse=True)
def _in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_SECONDS_AFTER_AN_ERROR", 0.01)
    monkeypatch.setattr(runner, "_SECONDS_BETWEEN_LOOKS", 0.01)


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
    assert trainers.starts == 3
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
