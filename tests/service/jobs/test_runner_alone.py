"""The runner with trainers that do nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from service.app import Settings
from service.jobs import runner
from service.jobs.job_queue import Queue
from service.jobs.store import State
from service.jobs.trainers import End
from tests.service.services import wait_until
from training.config import TrainConfig


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


def test_the_runner_starts_jobs_in_the_order_of_the_queue(settings: Settings) -> None:
    started: list[int] = []
    queue = Queue(replace(settings.jobs, trainers=Trainers(started.append)))
    config = queue.roots.confine(TrainConfig())
    for priority in (0, 5, 0, 1000, -1000, 5):
        queue.store.add(config, priority)
    queue.start()
    wait_until(lambda: queue.store.count(State.FAILED) == 6)
    queue.stop()
    assert started == [4, 2, 6, 1, 3, 5]


def test_a_job_that_is_cancelled_while_it_cannot_be_started_ends(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the queue goes on."""
    monkeypatch.setattr(runner, "_SECONDS_AFTER_AN_ERROR", 0.01)

    def starting(job: int) -> None:
        if job == 1:
            assert queue.store.cancel(job)
            raise OSError("no room")

    queue = Queue(replace(settings.jobs, trainers=Trainers(starting)))
    for _ in range(2):
        queue.store.add(queue.roots.confine(TrainConfig()), 0)
    queue.start()
    wait_until(lambda: queue.store.count(State.FAILED))
    (cancelled,) = queue.store.page(State.CANCELLED, 9, 0)
    queue.stop()
    assert cancelled.id == 1


def test_a_job_that_cannot_be_started_keeps_no_other_from_its_slot(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_SECONDS_AFTER_AN_ERROR", 0.01)

    def starting(job: int) -> None:
        if job == 1:
            raise OSError("no room")

    trainers = Trainers(starting)
    queue = Queue(replace(settings.jobs, slots=2, trainers=trainers))
    for _ in range(2):
        queue.store.add(queue.roots.confine(TrainConfig()), 0)
    queue.start()
    wait_until(lambda: queue.store.count(State.FAILED))
    (other,) = queue.store.page(State.FAILED, 9, 0)
    queue.stop()
    assert other.id == 2
