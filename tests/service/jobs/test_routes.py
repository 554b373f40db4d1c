"""The HTTP API of the jobs, on a queue that no runner takes from."""

import asyncio
import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service import security
from service.app import Settings, create_app
from service.jobs import runner
from service.jobs.job_queue import Queue, QueueConfig
from service.jobs.store import State, Store
from service.jobs.trainers import End, command, processes
from service.serving.config import ServingConfig
from service.serving.routes import Serving
from tests.service.services import wait_until
from training.config import TrainConfig
from training.errors import UserError

OWN = {"base_url": "http://localhost:8501"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "data" / "pictures").mkdir(parents=True)
    exports = tmp_path / "models"
    jobs = QueueConfig(tmp_path / "state", exports, data_roots=(tmp_path / "data",))
    return Settings(ServingConfig(exports), jobs)


@pytest.fixture
def client(settings: Settings) -> TestClient:
    # Without `with`, the application does not start up: no runner.
    return TestClient(create_app(settings, Serving(settings.serving)), **OWN)


@pytest.fixture
def store(client: TestClient) -> Store:
    return client.app.state.queue.store


def test_a_job_is_queued_with_the_services_directories(
    client: TestClient, settings: Settings
) -> None:
    answer = client.post("/v1/jobs?priority=3", json={"model": "mlp", "epochs": 7})
    assert answer.status_code == 201
    job = answer.json()
    expected = TrainConfig(
        model="mlp",
        epochs=7,
        run_dir=settings.jobs.state_dir / "runs",
        export_dir=settings.jobs.exports,
    )
    assert TrainConfig(**job["config"]) == expected
    assert (job["id"], job["state"], job["priority"]) == (1, "queued", 3)
    assert (job["name"], job["sweep"]) == ("mlp-fashion_mnist", None)
    assert job["directory"] == str(settings.jobs.state_dir / "runs" / "1")
    for key in ("progress", "metrics", "result", "started", "ended"):
        assert job[key] is None
    assert abs(job["submitted"] - time.time()) < 60
    assert client.get("/v1/jobs/1").json() == job
    assert client.get("/v1/jobs/1/metrics").json() == []
    assert client.get("/v1/jobs/1/logs").text == ""
    assert client.get("/v1/jobs/1/artifacts").json() == []


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({"epochs": 0}, "epochs", "greater than or equal to 1"),
        ({"epoch": 3}, "epoch", "Extra inputs are not permitted"),
        ({"model": "rnn"}, "model", "'cnn' or 'mlp'"),
        ({"dropout_rate": 1.5}, "dropout_rate", "less than 1"),
        ({"learning_rate": "fast"}, "learning_rate", "valid number"),
        ({"name": "../evil"}, "name", "pattern"),
        ({"dataset": "a\nb"}, "dataset", "pattern"),
        ({"batch_size": 2**62}, "batch_size", "less than 2147483648"),
        ({"learning_rate": 1e300}, "learning_rate", "less than or equal to 1000000"),
        ({"replicas": 10**9}, "replicas", "less than or equal to 256"),
        ({"name": ".hidden"}, "name", "pattern"),
        ({"epochs": []}, "epochs", "must not be empty"),
        ({"epochs": [1, 0]}, "epochs", "greater than or equal to 1"),
        ({"export_dir": "/etc"}, "export_dir", "must be /"),
        ({"run_dir": "/etc"}, "run_dir", "must be /"),
        ({"name": "x" * 101}, "name", "at most 100 characters"),
        ({"dataset": "x" * 1001}, "dataset", "at most 1000 characters"),
        ({"archives": "~nosuchuser/x"}, "archives", "there is no such user"),
        ({"dataset": "folder:~nosuchuser"}, "dataset", "there is no such user"),
        ({"data_dir": "/etc"}, "data_dir", "must lie in"),
        ({"archives": "/etc"}, "archives", "must lie in"),
        ({"dataset": "folder:/etc"}, "dataset", "must lie in"),
    ],
)
def test_a_config_that_is_not_allowed_is_refused_with_its_field(
    client: TestClient, body: dict[str, object], field: str, message: str
) -> None:
    answer = client.post("/v1/jobs", json=body)
    assert answer.status_code == 422
    (complaint,) = answer.json()["detail"]
    assert complaint["loc"] == ["body", field]
    assert message in complaint["msg"]
    assert client.get("/v1/jobs").json()["total"] == 0


def test_a_config_whose_fields_contradict_each_other_is_refused(
    client: TestClient,
) -> None:
    answer = client.post("/v1/jobs", json={"norm": False, "recalibrate": 100})
    assert answer.status_code == 422
    (complaint,) = answer.json()["detail"]
    assert complaint["loc"] == ["body"]
    assert "`recalibrate` needs batch normalization" in complaint["msg"]


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 422), (b"[]", 422), (b"", 422), (b'"x"', 422), (b"[" * 50_000, 422)],
)
def test_a_body_that_is_no_json_object(
    client: TestClient, body: bytes, status: int
) -> None:
    answer = client.post(
        "/v1/jobs", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == status
    assert answer.json()["detail"][0]["msg"].startswith("The body must be")


@pytest.mark.parametrize(
    "body",
    [
        b'{"name": "\\ud800"}',
        b'{"seed": 1e400}',
        b'{"learning_rate": NaN}',
        b'{"learning_rate": [NaN]}',
        b'{"seed": 99999999999999999999999999}',
        b'{"epochs": [[1]]}',
        b'{"\\ud800": 1}',
        b'{"dataset": "folder:\\u0000"}',
        b'{"data_dir": "\\u0000"}',
        b'{"model": {"a": 1}}',
    ],
)
def test_odd_values_are_refused(client: TestClient, body: bytes) -> None:
    answer = client.post(
        "/v1/jobs", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422
    assert answer.json()["detail"]


def test_numbers_that_no_table_holds(client: TestClient) -> None:
    for path in (f"jobs/{2**63}", f"jobs/{10**30}/logs", f"sweeps/{2**63}", "jobs/0"):
        assert client.get(f"/v1/{path}").status_code == 422
    for query in (f"offset={2**63}", f"limit={2**63}"):
        assert client.get(f"/v1/jobs?{query}").status_code == 422
    assert client.post(f"/v1/jobs?priority={2**63}", json={}).status_code == 422


def test_a_link_does_not_lead_out_of_the_roots(
    client: TestClient, settings: Settings, tmp_path: Path
) -> None:
    (root,) = settings.jobs.data_roots
    (root / "link").symlink_to("/etc")
    (root / "loop").symlink_to(root / "loop")
    for path in (root / "link", root / "loop" / "x", root / ".." / "elsewhere"):
        answer = client.post("/v1/jobs", json={"archives": str(path)})
        assert answer.status_code == 422
    inside = client.post("/v1/jobs", json={"dataset": f"folder:{root / 'pictures'}"})
    assert inside.status_code == 201


def test_a_sweep_makes_a_job_of_each_combination(client: TestClient) -> None:
    body = {"learning_rate": [1e-3, 2e-3], "model": ["mlp", "cnn"], "seed": 5}
    answer = client.post("/v1/jobs", json=body)
    assert answer.status_code == 201
    sweep = answer.json()
    assert client.get(f"/v1/sweeps/{sweep['id']}").json() == sweep
    assert sweep["fields"] == ["learning_rate", "model"]
    assert sweep["best"] is None
    assert [row["values"] for row in sweep["rows"]] == [
        {"learning_rate": 1e-3, "model": "mlp"},
        {"learning_rate": 1e-3, "model": "cnn"},
        {"learning_rate": 2e-3, "model": "mlp"},
        {"learning_rate": 2e-3, "model": "cnn"},
    ]
    names = [
        client.get(f"/v1/jobs/{row['job']}").json()["name"] for row in sweep["rows"]
    ]
    assert names[0] == "mlp-fashion_mnist-learning_rate-0.001-model-mlp"
    assert len(set(names)) == 4
    jobs = client.get("/v1/jobs").json()["jobs"]
    assert {job["sweep"] for job in jobs} == {sweep["id"]}
    assert client.get("/v1/sweeps/2").status_code == 404


@pytest.mark.parametrize(
    "values", [{"seed": [1, 1]}, {"name": ["a", "a"]}, {"name": ["x" * 99, "y"]}]
)
def test_no_two_jobs_of_a_sweep_have_one_name(
    client: TestClient, values: dict[str, list[object]]
) -> None:
    body = {**values, "seed": values.get("seed", 0), "epochs": [1, 2]}
    assert client.post("/v1/jobs", json=body).status_code == 201
    names = [job["name"] for job in client.get("/v1/jobs").json()["jobs"]]
    assert len(set(names)) == 4
    assert max(map(len, names)) <= 100


def test_a_sweep_is_queued_whole_or_not_at_all(client: TestClient) -> None:
    too_many = {"seed": list(range(1001))}
    # Whose combinations would not fit in any memory.
    far_too_many = {f: list(range(500)) for f in sorted(TrainConfig.model_fields)[:9]}
    for body in ({"epochs": [1, 2, 0]}, too_many, far_too_many):
        assert client.post("/v1/jobs", json=body).status_code == 422
    assert client.get("/v1/jobs").json() == {"total": 0, "jobs": []}


def test_the_list_has_pages_and_a_filter(client: TestClient) -> None:
    for seed in range(5):
        client.post("/v1/jobs", json={"seed": seed})
    client.post("/v1/jobs/2/cancel")
    ids = [job["id"] for job in client.get("/v1/jobs").json()["jobs"]]
    assert ids == [5, 4, 3, 2, 1]
    page = client.get("/v1/jobs?state=queued&limit=2&offset=1").json()
    assert page["total"] == 4
    assert [job["id"] for job in page["jobs"]] == [4, 3]
    for query in ("state=lost", "limit=0", "limit=1001", "offset=-1"):
        assert client.get(f"/v1/jobs?{query}").status_code == 422


def test_the_queue_is_by_priority_then_by_submission(
    client: TestClient, store: Store
) -> None:
    for priority in (0, 5, 0, 5, -1):
        client.post(f"/v1/jobs?priority={priority}", json={})
    assert [job.id for job in store.next(9)] == [2, 4, 1, 3, 5]


def test_a_clock_that_jumps_changes_no_order(
    client: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for now in (2e9, 1e9, 0.0):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        client.post("/v1/jobs", json={})
    assert [job.id for job in store.next(9)] == [1, 2, 3]
    ids = [job["id"] for job in client.get("/v1/jobs").json()["jobs"]]
    assert ids == [3, 2, 1]


def test_what_a_state_allows(client: TestClient, store: Store) -> None:
    client.post("/v1/jobs", json={})

    def statuses() -> tuple[int, ...]:
        """Of resume and delete, which these states refuse."""
        return (
            client.post("/v1/jobs/1/resume").status_code,
            client.delete("/v1/jobs/1").status_code,
        )

    assert statuses() == (409, 409)
    (job,) = store.next(1)
    assert store.start(job, attempts=1, epochs=0)
    assert not store.start(job, attempts=1, epochs=0)  # by a second runner
    assert client.get("/v1/jobs/1").json()["state"] == "running"
    assert statuses() == (409, 409)
    assert client.post("/v1/jobs/1/cancel").json()["state"] == "running"
    store.end(1, State.CANCELLED)
    assert client.post("/v1/jobs/1/cancel").status_code == 409
    assert client.post("/v1/jobs/1/resume").json()["state"] == "queued"
    assert client.post("/v1/jobs/1/cancel").json()["state"] == "cancelled"
    assert client.delete("/v1/jobs/1").status_code == 204
    for request in ("GET", "DELETE"):
        assert client.request(request, "/v1/jobs/1").status_code == 404
    client.post("/v1/jobs", json={})
    assert client.get("/v1/jobs").json()["jobs"][0]["id"] == 2  # no number twice


@pytest.fixture
def artifacts(client: TestClient, settings: Settings) -> Iterator[TestClient]:
    client.post("/v1/jobs", json={})
    run = settings.jobs.state_dir / "runs" / "1"
    (run / "logs").mkdir(parents=True)
    (run / "history.csv").write_text("epoch,loss\n1,0.5\n2,0.25\n")
    (run / "logs" / "events").write_bytes(b"\0\1")
    (run / ".pid").write_text("1")
    (run / "out").symlink_to("/etc/hostname")
    os.mkfifo(run / "pipe")
    (settings.jobs.state_dir / "secret").write_text("secret")
    # Somebody holds the pipe open, so that nobody waits for that.
    pipe = os.open(run / "pipe", os.O_RDWR)
    yield client
    os.close(pipe)


def test_artifacts_are_listed_and_given_out(artifacts: TestClient) -> None:
    listed = artifacts.get("/v1/jobs/1/artifacts").json()
    assert {"path": "history.csv", "size": 24} in listed
    assert {"path": "logs/events", "size": 2} in listed
    assert ".pid" not in {file["path"] for file in listed}
    assert artifacts.get("/v1/jobs/1/artifacts/logs/events").content == b"\0\1"
    assert artifacts.get("/v1/jobs/1/metrics").json() == [
        {"epoch": 1, "loss": 0.5},
        {"epoch": 2, "loss": 0.25},
    ]


@pytest.mark.parametrize(
    "path",
    [
        *(
            "nothing",
            "a%0ab%0a",
            "logs",
            ".pid",
            "pipe",
            "..%2f..%2fsecret",
            "%2e%2e/secret",
        ),
        *("/etc/hostname", "%2fetc%2fhostname", "out", "a%00b", "x" * 5000, ""),
    ],
)
def test_nothing_but_files_of_the_run_is_given_out(
    artifacts: TestClient, path: str
) -> None:
    assert artifacts.get(f"/v1/jobs/1/artifacts/{path}").status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "127.0.0.1:8501"}, 200),
        ({"Host": "[::1]:8501"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "localhost.evil.example"}, 403),
        ({"Host": "evil@localhost"}, 403),
        ({"Host": "localhost#evil"}, 403),
        ({"Host": "["}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": "http://localhost:8501"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost:3000"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_pages_elsewhere_are_kept_out(
    client: TestClient, headers: dict[str, str], status: int
) -> None:
    answer = client.get("/v1/jobs", headers=headers)
    assert answer.status_code == status
    assert client.post("/v1/jobs", headers=headers, json={}).status_code == (
        201 if status == 200 else 403
    )


@pytest.mark.parametrize(
    "media_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"],
)
def test_forms_of_other_pages_submit_nothing(
    client: TestClient, media_type: str
) -> None:
    answer = client.post(
        "/v1/jobs", content=b"{}", headers={"Content-Type": media_type}
    )
    assert answer.status_code == 415
    assert media_type in answer.json()["detail"]


def test_every_job_call_needs_the_token(settings: Settings) -> None:
    guarded = replace(settings, host="0.0.0.0", token="long word")
    app = create_app(guarded, Serving(guarded.serving))
    client = TestClient(app, base_url="http://training.example")
    calls = [
        *(("GET", "/v1/jobs"), ("POST", "/v1/jobs"), ("GET", "/v1/jobs/1")),
        *(
            ("DELETE", "/v1/jobs/1"),
            ("GET", "/v1/sweeps/1"),
            ("GET", "/v1/jobs/1/logs"),
        ),
    ]
    for method, path in calls:
        for headers in ({}, {"Authorization": "Bearer word"}, {"Authorization": "x"}):
            refused = client.request(method, path, headers=headers)
            assert refused.status_code == 401
            assert "long word" not in refused.text
    right = {"Authorization": "Bearer long word"}
    assert client.post("/v1/jobs", json={}, headers=right).status_code == 201


def test_a_file_that_grows_or_goes_while_it_is_read(
    artifacts: TestClient, settings: Settings
) -> None:
    run = settings.jobs.state_dir / "runs" / "1"
    with artifacts.stream("GET", "/v1/jobs/1/artifacts/history.csv") as answer:
        with (run / "history.csv").open("a") as file:
            file.write("3,0.125\n")
        assert len(answer.read()) == int(answer.headers["content-length"])
    (run / "gone").symlink_to(run / "nowhere")
    assert artifacts.get("/v1/jobs/1/artifacts").status_code == 200
    assert artifacts.get("/v1/jobs/1/artifacts/gone").status_code == 404


DAMAGED = [
    *("", "{}", "[]", "a,b\n1", "{", "\x00", "[" * 100_000, "epoch,loss\n1,0.5\n"),
    '{"export": "/"}',
    '{"epoch": 1, "epochs": 1, "step": 0, "steps": 0}',
]


@pytest.mark.parametrize("name", ["history.csv", "progress.json", "result.json"])
@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_file_of_a_run_counts_as_not_there(
    client: TestClient, settings: Settings, name: str, text: str
) -> None:
    client.post("/v1/jobs", json={"seed": [1]})
    run = settings.jobs.state_dir / "runs" / "1"
    run.mkdir(parents=True)
    (run / name).write_text(text)
    job = client.get("/v1/jobs/1").json()
    assert job["result"] is job["progress"] is None
    (row,) = client.get("/v1/sweeps/1").json()["rows"]
    assert row["validation"] is None


def test_figures_that_are_not_finite_are_null(
    client: TestClient, settings: Settings
) -> None:
    """As train.py writes them where a learning rate was too high."""
    client.post("/v1/jobs", json={"seed": [1]})
    run = settings.jobs.state_dir / "runs" / "1"
    run.mkdir(parents=True)
    history = "epoch,loss,val_loss,val_accuracy\n1,inf,nan,0.125\n"
    (run / "history.csv").write_text(history)
    row = {"epoch": 1, "loss": None, "val_loss": None, "val_accuracy": 0.125}
    assert client.get("/v1/jobs/1/metrics").json() == [row]
    assert client.get("/v1/jobs/1").json()["metrics"] == row
    scores = {"loss": math.nan, "accuracy": 0.125}
    result = {"directory": str(run), "export": str(run), "epochs": 1}
    result |= {"training_seconds": 2.5}
    result |= {"metrics": dict.fromkeys(("train", "validation", "test"), scores)}
    for text in ("", json.dumps(result)):
        (run / "result.json").write_text(text)
        (row,) = client.get("/v1/sweeps/1").json()["rows"]
        assert row["validation"] == {"loss": None, "accuracy": 0.125}
    scores["loss"] = None
    assert client.get("/v1/jobs/1").json()["result"] == result


def test_files_may_go_while_they_are_listed(
    artifacts: TestClient, settings: Settings
) -> None:
    """TensorFlow writes a checkpoint into a directory that it then removes."""
    temporary = settings.jobs.state_dir / "runs" / "1" / "checkpoints" / "temporary"
    ended = threading.Event()

    def come_and_go() -> None:
        while not ended.is_set():
            temporary.mkdir(parents=True)
            (temporary / "part").touch()
            shutil.rmtree(temporary)

    with ThreadPoolExecutor() as pool:
        going = pool.submit(come_and_go)
        try:
            for _ in range(500):
                files = artifacts.get("/v1/jobs/1/artifacts").json()
                assert {"path": "history.csv", "size": 24} in files
        finally:
            ended.set()
        going.result()


def test_a_log_that_cannot_be_read_is_empty(
    artifacts: TestClient, settings: Settings
) -> None:
    (settings.jobs.state_dir / "runs" / "1" / "log.txt").mkdir()
    artifacts.post("/v1/jobs", json={})
    (settings.jobs.state_dir / "runs" / "2").touch()
    for job in (1, 2):
        assert artifacts.get(f"/v1/jobs/{job}/logs").text == ""
        artifacts.post(f"/v1/jobs/{job}/cancel")
        events = artifacts.get(
            f"/v1/jobs/{job}/logs", headers={"Accept": "text/event-stream"}
        )
        assert events.text == "event: end\ndata: cancelled\n\n"


def test_a_body_that_is_too_large_is_refused(client: TestClient) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    headers = {"Content-Type": "application/json"}
    for content in (b" " * 100_000, parts()):
        answer = client.post("/v1/jobs", content=content, headers=headers)
        assert answer.status_code == 413
        assert answer.json()["detail"] == "The body must have at most 65,536 bytes."


@pytest.mark.parametrize(
    ("end", "status", "reason"),
    [
        (None, 408, "The body must arrive within 0 seconds."),
        ({"type": "http.disconnect"}, 400, "The client has gone."),
    ],
)
def test_a_body_that_does_not_come(
    client: TestClient,
    monkeypatch: pytest.MonkeyPatch,
    end: dict[str, str] | None,
    status: int,
    reason: str,
) -> None:
    """After its beginning nothing comes any more, or the end of the connection."""
    monkeypatch.setattr(security, "_SECONDS_FOR_A_BODY", 0.2)
    beginning = {"type": "http.request", "body": b"{", "more_body": True}
    messages = [beginning, *([end] if end else [])]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {
        **{"type": "http", "method": "POST", "path": "/v1/jobs", "headers": headers},
        **{"query_string": b"", "http_version": "1.1", "server": ("localhost", 80)},
    }
    asyncio.run(client.app(scope, receive, send))
    assert sent[0]["status"] == status
    assert json.loads(sent[1]["body"]) == {"detail": reason}
    assert client.get("/v1/jobs").json()["total"] == 0


def test_one_service_uses_a_state_directory(
    client: TestClient, settings: Settings
) -> None:
    with pytest.raises(
        UserError, match=f"Another service uses {settings.jobs.state_dir}"
    ):
        create_app(settings, Serving(settings.serving))


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
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
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


def test_a_new_table_does_not_go_on_with_old_runs(settings: Settings) -> None:
    runs = settings.jobs.state_dir / "runs"
    for name in ("7", "12", "name", "-20", "9" * 30):
        (runs / name).mkdir(parents=True)
    queue = Queue(settings.jobs)
    assert [queue.store.add(TrainConfig(), 0).id for _ in range(2)] == [13, 14]


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


def test_the_api_describes_itself(client: TestClient) -> None:
    api = client.get("/openapi.json").json()
    body = api["paths"]["/v1/jobs"]["post"]["requestBody"]
    fields = body["content"]["application/json"]["schema"]["properties"]
    assert set(fields) == set(TrainConfig.model_fields)
    assert {"type": "array", "items": fields["epochs"]["anyOf"][0], "minItems": 1} in (
        fields["epochs"]["anyOf"]
    )
    assert client.get("/docs").status_code == 200
    json.dumps(api)


def test_a_trainer_is_known_by_whatever_name_python_has(tmp_path: Path) -> None:
    """A service may be started as `python`, the next one as `python3`."""
    python = tmp_path / "another-python"
    python.symlink_to(sys.executable)
    _, *words = command(tmp_path / "runs" / "1")
    sleep = "import time; time.sleep(600)"
    with subprocess.Popen([str(python), "-c", sleep, *words]) as process:
        try:
            wait_until(lambda: processes(tmp_path / "runs" / "1"))
            (found,) = processes(tmp_path / "runs" / "1")
            assert found.pid == process.pid
            assert processes(tmp_path / "runs" / "11") == []
        finally:
            process.kill()


def test_models_are_unloaded_whatever_becomes_of_the_jobs(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their threads would keep the process alive."""
    serving = Serving(settings.serving)
    app = create_app(settings, serving)
    queue = app.state.queue

    def stop() -> None:
        Queue.stop(queue)
        raise OSError("no room")

    monkeypatch.setattr(queue, "stop", stop)
    with pytest.raises(OSError, match="no room"), TestClient(app, **OWN):
        pass
    assert not serving.servables._poller.is_alive()
