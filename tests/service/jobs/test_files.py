"""The files of a run, as they are given out."""

import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient

from service.app import Settings
from training.run.files import last_lines


@pytest.fixture
def artifacts(client: TestClient, settings: Settings) -> Iterator[TestClient]:
    client.post("/v1/jobs", json={})
    run = settings.jobs.state_dir / "runs" / "1"
    (run / "logs").mkdir(parents=True)
    (run / "history.csv").write_text("epoch,loss\n1,0.5\n2,0.25\n")
    (run / "logs" / "events").write_bytes(b"\0\1")
    (run / ".pid").write_text("1")
    (run / "out").symlink_to("/etc/hostname")
    (run / "twice").symlink_to("history.csv")
    (run / "state").symlink_to(settings.jobs.state_dir)
    (run / "again").symlink_to(run / "logs")
    (run / os.fsdecode(b"\xff.txt")).write_text("no text is its name")
    os.mkfifo(run / "pipe")
    (settings.jobs.state_dir / "secret").write_text("secret")
    # Held open here, so that nobody who opens it has to wait.
    pipe = os.open(run / "pipe", os.O_RDWR)
    yield client
    os.close(pipe)


def test_artifacts_are_listed_and_given_out(artifacts: TestClient) -> None:
    listed = artifacts.get("/v1/jobs/1/artifacts").json()
    assert listed == [
        {"path": "history.csv", "size": 24},
        {"path": "logs/events", "size": 2},
    ]
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
        *("twice", "state/secret", "again/events", "logs//events", "logs/", "%ff.txt"),
        *("%ed%a0%80", "%2e/history.csv", "logs/%2e/events", "history.csv/x"),
    ],
)
def test_nothing_but_files_of_the_run_is_given_out(
    artifacts: TestClient, path: str
) -> None:
    assert artifacts.get(f"/v1/jobs/1/artifacts/{path}").status_code == 404


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
            for _ in range(200):
                files = artifacts.get("/v1/jobs/1/artifacts").json()
                assert {"path": "history.csv", "size": 24} in files
        finally:
            ended.set()
        going.result()


@pytest.mark.parametrize("name", ["log.txt", "history.csv", "progress.json"])
def test_a_link_is_no_file_of_the_run(
    artifacts: TestClient, settings: Settings, name: str
) -> None:
    """Whoever has put it there: neither the log nor what the service reads itself."""
    run = settings.jobs.state_dir / "runs" / "1"
    (run / name).unlink(missing_ok=True)
    text = "epoch,loss\n9,9\n" if name == "history.csv" else "secret"
    if name == "progress.json":
        text = '{"epoch": 9, "epochs": 9, "step": 9, "steps": 9}'
    (settings.jobs.state_dir / "target").write_text(text)
    (run / name).symlink_to(settings.jobs.state_dir / "target")
    assert artifacts.get("/v1/jobs/1/logs").text == ""
    if name != "progress.json":
        assert last_lines(run, 5) == []
    job = artifacts.get("/v1/jobs/1").json()
    assert job["progress"] is None
    assert (job["metrics"] is None) == (name == "history.csv")
    artifacts.post("/v1/jobs/1/cancel")
    events = artifacts.get("/v1/jobs/1/logs", headers={"Accept": "TEXT/event-stream"})
    assert events.text == "event: end\ndata: cancelled\n\n"


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
