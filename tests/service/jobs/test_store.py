"""The table of jobs."""

import json
import shutil
import sqlite3
import time
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

import service.jobs.store
from service.app import Settings, create_app
from service.jobs.job_queue import QueueConfig
from service.jobs.store import State, Store
from service.serving.config import ServingConfig
from service.serving.routes import Serving
from tests.service.conftest import URL
from training.config import TrainConfig
from training.errors import UserError

EARLIER = Path(__file__).parent / "earlier"


def test_the_queue_is_by_priority_then_by_submission(
    client: TestClient, store: Store
) -> None:
    for priority in (0, 5, 0, 5, -1):
        client.post(f"/v1/jobs?priority={priority}", json={})
    assert [job.id for job in store.next(9)] == [2, 4, 1, 3, 5]


def test_a_job_keeps_its_place_in_the_queue(store: Store) -> None:
    """Whatever it has been through; one that is being cancelled goes on to its end."""
    jobs = [store.add(TrainConfig(), 0) for _ in range(3)]
    assert store.start(jobs[0], attempts=2, epochs=5)
    (running,) = store.running()
    assert (running.attempts, running.epochs) == (2, 5)
    assert running.started
    assert store.requeue(1, [State.FAILED, State.RUNNING], "Waits.")
    first, *_ = store.next(3)
    assert (first.id, first.message, first.ended) == (1, "Waits.", None)
    assert not store.requeue(1, [State.RUNNING])
    assert [job.id for job in store.next(2)] == [1, 2]
    assert store.start(first, attempts=1, epochs=5)
    (running,) = store.running()
    assert running.message == ""
    assert store.cancel(1)
    assert store.cancel(1)  # it is on its way
    assert not store.requeue(1, [State.RUNNING])
    store.end(1, State.CANCELLED, "Enough.")
    store.end(1, State.SUCCEEDED)  # it has ended already
    found = store.get(1)
    assert found
    assert (found.state, found.message) == (State.CANCELLED, "Enough.")
    assert not store.cancel(1)


def test_interrupted_jobs_are_queued_again_and_no_others(store: Store) -> None:
    for state in (State.INTERRUPTED, State.FAILED, State.INTERRUPTED):
        job = store.add(TrainConfig(), 0)
        store.start(job, attempts=1, epochs=0)
        store.end(job.id, state, "Because.")
    store.requeue_interrupted()
    assert [(job.id, job.message) for job in store.next(9)] == [(1, ""), (3, "")]
    assert store.count(State.FAILED) == 1
    assert (store.count(None), store.count(State.RUNNING)) == (3, 0)


def test_jobs_that_run_or_wait_are_not_deleted(store: Store) -> None:
    for _ in range(2):
        store.add(TrainConfig(), 0)
    store.start(store.next(1)[0], attempts=1, epochs=0)
    assert not store.delete(1)
    assert not store.delete(2)
    assert not store.delete(3)
    store.end(1, State.FAILED)
    assert store.delete(1)
    assert store.get(1) is None
    store.count_on_from(7)
    store.count_on_from(3)
    assert store.add(TrainConfig(), 0).id == 8


def test_the_jobs_of_a_sweep(store: Store) -> None:
    configs = [TrainConfig(seed=seed) for seed in (1, 2)]
    store.add(TrainConfig(), 0)
    number, jobs = store.add_sweep(["seed"], configs, 5)
    assert store.of_sweep(number) == jobs
    assert [(job.config, job.priority, job.sweep) for job in jobs] == [
        (config, 5, number) for config in configs
    ]
    assert store.sweep_fields(number) == ["seed"]
    assert store.sweep_fields(number + 1) is None
    assert store.of_sweep(number + 1) == []


def test_a_clock_that_jumps_changes_no_order(
    client: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for now in (2e9, 1e9, 0.0):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        client.post("/v1/jobs", json={})
    assert [job.id for job in store.next(9)] == [1, 2, 3]
    ids = [job["id"] for job in client.get("/v1/jobs").json()["jobs"]]
    assert ids == [3, 2, 1]


def test_what_was_queued_outlives_the_process(
    client: TestClient, settings: Settings
) -> None:
    client.post("/v1/jobs", json={"seed": 11})
    again = Store(settings.jobs.state_dir / "jobs.sqlite")
    (job,) = again.next(9)
    assert job.config.seed == 11
    again.close()


def test_a_full_disk_is_said(
    client: TestClient, store: Store, settings: Settings
) -> None:
    """SQLite is told how many pages it may have, as a full disk would tell it."""
    client.post("/v1/jobs", json={})
    connection = store._table._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    statuses = {client.post("/v1/jobs", json={}).status_code for _ in range(50)}
    assert statuses == {201, 507}
    answer = client.post("/v1/jobs", json={})
    assert "database or disk is full" in answer.json()["detail"]
    before = client.get("/v1/jobs").json()["total"]
    with sqlite3.connect(settings.jobs.state_dir / "jobs.sqlite") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("SELECT count(*) FROM job").fetchone() == (before,)


def test_a_table_that_is_removed_takes_no_jobs(
    client: TestClient, settings: Settings
) -> None:
    """SQLite would write into the file that nobody can find any more."""
    client.post("/v1/jobs", json={})
    shutil.rmtree(settings.jobs.state_dir)
    for _ in range(2):
        for answer in (client.post("/v1/jobs", json={}), client.get("/v1/jobs")):
            assert answer.status_code == 507
            assert "jobs.sqlite has been removed" in answer.json()["detail"]
        settings.jobs.state_dir.mkdir(exist_ok=True)
        (settings.jobs.state_dir / "jobs.sqlite").touch()  # another one


def test_a_table_of_an_earlier_version_is_answered_as_it_was(tmp_path: Path) -> None:
    """That of commit 3485bfc, with jobs in every state, and its answers.

    But for a job that is being cancelled, which was shown as running, and the time of
    the last progress, which was not known; and for options and searches since then.
    """
    (tmp_path / "state").mkdir()
    table = sqlite3.connect(tmp_path / "state" / "jobs.sqlite")
    table.executescript((EARLIER / "jobs.sql").read_text(encoding="utf-8"))
    table.close()
    jobs = QueueConfig(tmp_path / "state", tmp_path / "models")
    settings = Settings(ServingConfig(tmp_path / "models"), jobs)
    client = TestClient(create_app(settings, Serving(settings.serving)), base_url=URL)
    answers = json.loads((EARLIER / "answers.json").read_text(encoding="utf-8"))
    order = answers.pop("next")
    answers["/v1/sweeps/1"]["search"] = None
    for row in answers["/v1/sweeps/1"]["rows"]:
        row |= {"message": "", "trial": None}
    defaults = TrainConfig().model_dump(mode="json")
    for answer in answers.values():
        for job in answer.get("jobs", [answer]):
            if "directory" in job:
                job["last_progress"] = None
            if "priority" in job:
                job |= {"gpus": None, "devices": []}
            if job.get("config"):
                job["config"] = defaults | job["config"]
            if job["id"] == 13:
                assert job["state"] == "running"
                job["state"] = "cancelling"
    states = {job["state"] for job in answers["/v1/jobs"]["jobs"]}
    states.add(State.RUNNING)
    assert states == set(State)
    for path, answer in answers.items():
        assert client.get(path).json() == answer
    store = client.app.state.queue.store
    assert [job.id for job in store.next(9)] == order
    assert client.post("/v1/jobs", json={}).json()["id"] == 16


def rewrite(settings: Settings, statement: str, *values: object) -> None:
    with sqlite3.connect(settings.jobs.state_dir / "jobs.sqlite") as database:
        database.execute(statement, values)
    database.close()


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("config", '{"colour": "red"}', "`colour` is not an option."),
        ("config", '{"epochs": "many"}', "`--epochs` must be a valid integer"),
        ("config", b'{"seed": 1, "name": "a\xff"}', "`--name` must match pattern"),
        ("config", "{", "Invalid JSON"),
        ("config", b"\x00\xff", "Invalid JSON"),
        ("config", 7, "Input should be an object."),
        ("state", "paused", "`state` is 'paused'."),
        ("state", b"\xff", "`state` is '\N{REPLACEMENT CHARACTER}'."),
        ("priority", "high", "`priority` is 'high'."),
        ("attempts", "x", "`attempts` is 'x'."),
        ("message", b"\xff", ""),
        ("submitted", "yesterday", "`submitted` is 'yesterday'."),
        ("submitted", float("inf"), "`submitted` is 'inf'."),
        ("sweep", "first", "`sweep` is 'first'."),
    ],
)
def test_a_row_that_cannot_be_read_is_shown_as_such(
    client: TestClient,
    store: Store,
    settings: Settings,
    column: str,
    value: object,
    said: str,
) -> None:
    """One of another version, or with a damaged byte: the others are as they were."""
    client.post("/v1/jobs", json={"seed": [1, 2]})
    client.post("/v1/jobs", json={})
    others = client.get("/v1/jobs").json()["jobs"]
    new = "CAST(? AS TEXT)" if isinstance(value, bytes) else "?"
    rewrite(settings, f"UPDATE job SET {column} = {new} WHERE id = 2", value)
    jobs = client.get("/v1/jobs").json()["jobs"]
    assert [job["id"] for job in jobs] == [3, 2, 1]
    assert [jobs[0], jobs[2]] == [others[0], others[2]]
    assert said in jobs[1]["message"]
    if said:
        assert jobs[1]["message"].startswith("The row of this job cannot be read: ")
        assert jobs[1]["message"].isprintable()
    detail = client.get("/v1/jobs/2").json()
    assert (detail["config"] is None) == bool(said)
    assert detail["directory"] == str(settings.jobs.state_dir / "runs" / "2")
    for path in ("/v1/jobs/2/logs", "/v1/jobs/2/artifacts", "/v1/sweeps/1"):
        assert client.get(path).status_code == 200
    assert client.post("/v1/jobs/cancel").status_code == 200
    assert client.delete("/v1/jobs/2").status_code == 204


def test_a_damaged_sweep_has_no_fields(client: TestClient, settings: Settings) -> None:
    client.post("/v1/jobs", json={"seed": [1, 2]})
    for fields in ("{", "7", '[["seed"]]', '["seed", "colour"]'):
        rewrite(settings, "UPDATE sweep SET fields = ?", fields)
        sweep = client.get("/v1/sweeps/1").json()
        assert sweep["fields"] == (["seed"] if "colour" in fields else [])
        assert len(sweep["rows"]) == 2


@pytest.mark.parametrize("version", [3, 2**31 - 1, -1])
def test_a_table_of_a_later_version_is_refused_in_one_line(
    settings: Settings, version: int
) -> None:
    settings.jobs.state_dir.mkdir()
    rewrite(settings, f"PRAGMA user_version = {version}")
    with pytest.raises(UserError, match=f"a table of version {version}; ") as caught:
        create_app(settings, Serving(settings.serving))
    assert str(caught.value).startswith("`--state-dir` must hold the jobs of this")
    rewrite(settings, "CREATE TABLE nothing_was_made (x)")


def test_the_table_says_its_version(store: Store, settings: Settings) -> None:
    with sqlite3.connect(settings.jobs.state_dir / "jobs.sqlite") as database:
        assert database.execute("PRAGMA user_version").fetchone() == (2,)


def test_a_table_holds_so_many_jobs(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of whatever state: to submit and to cancel costs nothing."""
    monkeypatch.setattr(service.jobs.store, "MOST_JOBS", 3)
    assert client.post("/v1/jobs", json={"seed": [1, 2]}).status_code == 201
    client.post("/v1/jobs/cancel")
    answer = client.post("/v1/jobs", json={"seed": [1, 2]})
    assert answer.status_code == 507
    assert "at most 3 jobs; delete some" in answer.json()["detail"]
    assert client.get("/v1/sweeps/2").status_code == 404
    assert client.post("/v1/jobs", json={}).status_code == 201
    assert client.post("/v1/jobs", json={}).status_code == 507
    assert client.delete("/v1/jobs/1").status_code == 204
    assert client.get("/v1/sweeps/1").status_code == 200
    assert client.delete("/v1/jobs/2").status_code == 204
    assert client.get("/v1/sweeps/1").status_code == 404  # its last job is gone


def test_a_table_that_is_closed_is_not_used(tmp_path: Path) -> None:
    store = Store(tmp_path / "jobs.sqlite")
    store.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        store.count(None)
