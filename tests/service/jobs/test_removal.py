"""What is removed of jobs that have ended, and what a SIGKILL in between leaves."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.app import Settings
from service.jobs import removal
from service.jobs.job_queue import Queue
from service.jobs.removal import Retention
from service.jobs.store import Job, State, Store
from service.jobs.trainers import End
from tests.conftest import REPOSITORY
from tests.service.jobs.test_runner import Manual
from tests.service.services import wait_until
from training.config import TrainConfig
from training.run.claim import run_id

# Delete job 1, and be killed at a place.
KILLED = """
import os, pathlib, shutil, signal, sqlite3, sys
from service.jobs import removal
from service.jobs.store import Store
from service.jobs.table import Table

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def rename_and_die(self, new, rename=pathlib.Path.rename):
    rename(self, new)
    die()

def remove_half(path, **_):
    if os.path.exists(path):
        os.remove(path / "config.json")
        die()

state, place = pathlib.Path(sys.argv[1]), sys.argv[2]
store = Store(state / "jobs.sqlite")
match place:
    case "before the rename": pathlib.Path.rename = die
    case "before the commit": pathlib.Path.rename = rename_and_die
    case "in between": shutil.rmtree = remove_half
removal.delete(store, store.get(1))
"""


@pytest.fixture(autouse=True)
def _look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "_SECONDS_BETWEEN_LOOKS", 0.0)


def ended(store: Store, directory: Path, state: State = State.FAILED) -> Job:
    """A job that has ended, with its run."""
    config = TrainConfig(run_dir=directory / "runs", export_dir=directory / "models")
    job = store.add(config, 0)
    job.directory.mkdir(parents=True)
    for name in ("config.json", "log.txt"):
        (job.directory / name).touch()
    store.start(job, attempts=1, epochs=0)
    store.end(job.id, state)
    return job


@pytest.mark.parametrize(
    "place", ["before the rename", "before the commit", "in between"]
)
def test_a_run_is_removed_with_its_job_or_stays_whole(
    settings: Settings, place: str
) -> None:
    state = settings.jobs.state_dir
    state.mkdir()
    store = Store(state / "jobs.sqlite")
    job = ended(store, state)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(state), place], cwd=REPOSITORY
    )
    assert killed.returncode == -signal.SIGKILL
    # Nobody reads half of it.
    names = [path.name for path in job.directory.glob("*")]
    assert sorted(names) in ([], ["config.json", "log.txt"])
    assert (store.get(1) is None) == (place == "in between")
    store.close()
    store = Queue(settings.jobs).store
    is_kept = place == "before the rename"
    assert (store.get(1) is not None) == job.directory.exists() == is_kept
    assert [path.name for path in (state / "runs").iterdir()] == ["1"] * is_kept


def test_what_was_left_of_a_job_that_began_anew_is_not_the_job(
    settings: Settings,
) -> None:
    state = settings.jobs.state_dir
    state.mkdir()
    store = Store(state / "jobs.sqlite")
    job = ended(store, state)
    store.close()
    (state / "runs" / ".removed-1").mkdir()
    (settings.jobs.exports / "m" / ".removed-2" / "variables").mkdir(parents=True)
    store = Queue(settings.jobs).store
    assert store.get(1) is not None
    assert [path.name for path in job.directory.parent.iterdir()] == ["1"]
    assert list((settings.jobs.exports / "m").iterdir()) == []


def test_the_jobs_that_ended_last_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever their numbers are, and the clock says."""
    store = Store(tmp_path / "jobs.sqlite")
    monkeypatch.setattr("time.time", iter(range(10**6, 0, -1)).__next__)
    config = TrainConfig(run_dir=tmp_path / "runs")
    late = store.add(config, 0)
    jobs = [ended(store, tmp_path, State.SUCCEEDED) for _ in range(3)]
    interrupted = ended(store, tmp_path, State.INTERRUPTED)
    _, (one, two) = store.add_sweep(["seed"], [config, config], 0)
    store.start(one, attempts=1, epochs=0)
    store.end(one.id, State.FAILED)
    store.cancel(late.id)
    assert [job.id for job in store.superseded(2)] == [jobs[1].id, jobs[0].id]
    retention = keeping(store, tmp_path, runs=2)
    retention.look()
    left = {job.id for job in store.page(None, 9, 0)}
    assert left == {late.id, jobs[2].id, interrupted.id, one.id, two.id}
    assert {int(path.name) for path in (tmp_path / "runs").iterdir()} == {
        *(jobs[2].id, interrupted.id),
    }
    store.cancel(two.id)  # the sweep has ended: three have ended after the third job
    retention.look()
    left = {job.id for job in store.page(None, 9, 0)}
    assert left == {interrupted.id, late.id, two.id}
    store.close()


def keeping(
    store: Store,
    root: Path,
    versions: int | None = None,
    runs: int | None = None,
    needed: Callable[[Path], Collection[int] | None] = lambda model: (),
) -> Retention:
    return Retention(
        store, root / "models", versions=versions, runs=runs, needed=needed
    )


def publish(model: Path, version: int, run: str | None = "a run") -> None:
    """Make a version that nobody serves."""
    directory = model / str(version)
    (directory / "variables").mkdir(parents=True)
    if run is not None:
        card = json.dumps({"run": run, "classes": []})
        (directory / "model_card.json").write_text(card)


def versions(model: Path) -> list[str]:
    return sorted(path.name for path in model.iterdir())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "jobs.sqlite")
    yield store
    store.close()


def test_the_newest_versions_are_kept_and_those_that_are_needed(
    store: Store, tmp_path: Path
) -> None:
    needed: list[Collection[int] | None] = [None]
    retention = keeping(store, tmp_path, 2, needed=lambda model: needed[0])
    job = ended(store, tmp_path, State.SUCCEEDED)  # before this service
    model = tmp_path / "models" / job.config.export_name
    for number in (1, 2, 3, 9, 10):
        publish(model, number)
    publish(model, 4, run=None)  # somebody else's
    (model / ".incomplete-x").mkdir()
    (model / "5").symlink_to(model / "3")
    publish(tmp_path / "models" / "of no job", 1)
    everything = versions(model)
    retention.look()
    assert versions(model) == everything  # one of them is being loaded
    needed[0] = {2, 7}
    retention.look()
    assert versions(model) == [".incomplete-x", "10", "2", "4", "5", "9"]
    publish(model, 11)
    retention.look()
    assert "9" in versions(model)  # no job has exported it
    retention.exported(job)
    retention.look()
    assert versions(model) == [".incomplete-x", "10", "11", "2", "4", "5"]
    assert versions(tmp_path / "models" / "of no job") == ["1"]


def test_the_version_of_a_job_that_still_reports_on_it_stays(
    store: Store, tmp_path: Path
) -> None:
    """Else the job would count as one that died, and train again."""
    retention = keeping(store, tmp_path, 1)
    job = ended(store, tmp_path, State.SUCCEEDED)
    slow = store.add(job.config, 0)
    slow.directory.mkdir()
    model = tmp_path / "models" / job.config.export_name
    publish(model, 1, run_id(slow.directory))
    publish(model, 2)
    store.start(slow, attempts=1, epochs=0)
    retention.look()
    assert versions(model) == ["1", "2"]
    store.end(slow.id, State.SUCCEEDED)
    retention.look()
    assert versions(model) == ["2"]


def test_a_version_that_cannot_be_removed_keeps_no_other(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [ended(store, tmp_path, State.SUCCEEDED) for _ in range(2)]
    (tmp_path / "models" / jobs[0].config.export_name).mkdir(parents=True)

    def needed(model: Path) -> Collection[int]:
        raise PermissionError(13, "Permission denied")

    publish(tmp_path / "models" / jobs[0].config.export_name, 1)
    publish(tmp_path / "models" / jobs[0].config.export_name, 2)
    keeping(store, tmp_path, 1, runs=1, needed=needed).look()
    assert [job.id for job in store.page(None, 9, 0)] == [2]


def test_a_job_that_succeeds_makes_room(settings: Settings) -> None:
    """Its result is known for longer than its version is there."""
    trainers = Manual()
    jobs = replace(settings.jobs, trainers=trainers, keep=1, keep_runs=2)
    queue = Queue(jobs)
    queue.start()
    try:
        done = [finish(queue, trainers) for _ in range(3)]
        model = settings.jobs.exports / done[0].config.export_name
        wait_until(lambda: versions(model) == ["3"])
        wait_until(lambda: queue.store.get(done[0].id) is None)
        assert not done[0].directory.exists()
        assert done[1].directory.exists()
    finally:
        queue.stop()


def finish(queue: Queue, trainers: Manual) -> Job:
    """Run a job to its end."""
    job = queue.store.add(queue.roots.confine(TrainConfig()), 0)
    wait_until(lambda: job.directory in trainers.running)
    model = queue.roots.exports / job.config.export_name
    publish(model, job.id, run_id(job.directory))
    write_result(job, model / str(job.id))
    trainers.running[job.directory] = End(0)
    wait_until(lambda: queue.store.count(State.RUNNING) == 0)
    return job


def write_result(job: Job, export: Path) -> None:
    scores = dict.fromkeys(("accuracy", "loss"), 0.5)
    result = {
        **{"directory": str(job.directory), "export": str(export)},
        **{"epochs": 4, "training_seconds": 2.5},
        "metrics": dict.fromkeys(("train", "validation", "test"), scores),
    }
    (job.directory / "result.json").write_text(json.dumps(result))


def test_a_result_is_shown_after_its_version_was_removed(
    client: TestClient, settings: Settings
) -> None:
    queue: Queue = client.app.state.queue
    job = queue.store.add(queue.roots.confine(TrainConfig()), 0)
    job.directory.mkdir(parents=True)
    write_result(job, settings.jobs.exports / "m" / "1")
    queue.store.start(job, attempts=1, epochs=0)
    assert client.get("/v1/jobs/1").json()["result"] is None  # it trains again
    queue.store.end(job.id, State.SUCCEEDED)
    assert client.get("/v1/jobs/1").json()["result"]["epochs"] == 4
