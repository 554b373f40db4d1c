"""Trainers that make no progress are noticed, and no others."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from service.jobs import stalls
from service.jobs.rows import Job, State
from service.jobs.stalls import Stalls
from training.config import TrainConfig
from training.run.files import BEAT


class Clock:
    """A clock that stands between the looks."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stalls, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "1").mkdir()
    config = TrainConfig(run_dir=tmp_path)
    numbers = {"priority": 0, "attempts": 1, "epochs": 0}
    times = {"submitted": 0.0, "started": 0.0, "ended": None}
    return Job(
        id=1,
        sweep=None,
        config=config,
        state=State.RUNNING,
        gpus=None,
        devices=(),
        message="",
        **numbers,
        **times,
    )


def beat(job: Job, seconds: float) -> None:
    (job.directory / BEAT).touch()
    os.utime(job.directory / BEAT, (seconds, seconds))


def looks(watch: Stalls, job: Job, clock: Clock, seconds: int) -> list[bool]:
    """What a look in each of the next seconds says."""
    found = []
    for _ in range(seconds):
        clock.now += 1
        found.append(watch.has_stalled(job))
    return found


def test_a_trainer_has_the_whole_time_from_each_progress(
    clock: Clock, job: Job
) -> None:
    watch = Stalls(timeout=10)
    assert looks(watch, job, clock, 10) == [False] * 10  # none yet
    beat(job, 5.0)
    assert looks(watch, job, clock, 10) == [False] * 10
    beat(job, 6.0)
    assert looks(watch, job, clock, 12) == [False] * 10 + [True] * 2
    watch.forget(job)
    assert looks(watch, job, clock, 11) == [False] * 10 + [True]


def test_a_clock_that_jumps_changes_nothing(clock: Clock, job: Job) -> None:
    """Neither does a machine that was suspended: the trainer was so, too."""
    watch = Stalls(timeout=10)
    for seconds in (2e9, 1e9, 5.0):
        beat(job, seconds)
        assert looks(watch, job, clock, 9) == [False] * 9
    beat(job, 6.0)
    assert looks(watch, job, clock, 4) == [False] * 4
    clock.now += 1e6
    assert not watch.has_stalled(job)
    assert looks(watch, job, clock, 3) == [False, True, True]


def test_0_is_no_limit(clock: Clock, job: Job) -> None:
    assert not any(looks(Stalls(timeout=0), job, clock, 1000))
