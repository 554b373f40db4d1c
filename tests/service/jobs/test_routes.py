"""The HTTP API of the jobs, on a queue that no runner takes from."""

import json
import os
import time
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.app import Settings
from service.jobs.store import State, Store
from training.config import TrainConfig


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
        download=False,
    )
    assert TrainConfig(**job["config"]) == expected
    assert (job["id"], job["state"], job["priority"]) == (1, "queued", 3)
    assert (job["name"], job["sweep"]) == ("mlp-fashion_mnist", None)
    assert job["directory"] == str(settings.jobs.state_dir / "runs" / "1")
    for key in (
        *("progress", "last_progress", "metrics"),
        *("result", "started", "ended"),
    ):
        assert job[key] is None
    assert abs(job["submitted"] - time.time()) < 60
    assert client.get("/v1/jobs/1").json() == job
    assert client.get("/v1/jobs/1/metrics").json() == []
    assert client.get("/v1/jobs/1/logs").text == ""
    assert client.get("/v1/jobs/1/artifacts").json() == []


def test_numbers_that_no_table_holds(client: TestClient) -> None:
    for path in (f"jobs/{2**63}", f"jobs/{10**30}/logs", f"sweeps/{2**63}", "jobs/0"):
        assert client.get(f"/v1/{path}").status_code == 422
    for query in (f"offset={2**63}", f"limit={2**63}"):
        assert client.get(f"/v1/jobs?{query}").status_code == 422
    assert client.post(f"/v1/jobs?priority={2**63}", json={}).status_code == 422


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
    for _ in range(2):
        assert client.post("/v1/jobs/1/cancel").json()["state"] == "cancelling"
    listed = client.get("/v1/jobs?state=cancelling").json()["jobs"]
    assert [job["state"] for job in listed] == ["cancelling"]
    assert statuses() == (409, 409)
    store.end(1, State.CANCELLED)
    assert client.post("/v1/jobs/1/cancel").status_code == 409
    assert client.post("/v1/jobs/1/resume").json()["state"] == "queued"
    assert client.post("/v1/jobs/1/cancel").json()["state"] == "cancelled"
    assert client.delete("/v1/jobs/1").status_code == 204
    for request in ("GET", "DELETE"):
        assert client.request(request, "/v1/jobs/1").status_code == 404
    client.post("/v1/jobs", json={})
    assert client.get("/v1/jobs").json()["jobs"][0]["id"] == 2  # no number twice


def test_a_sweep_and_all_jobs_are_cancelled_at_once(
    client: TestClient, store: Store
) -> None:
    """Those that run get time to end; what has ended stays as it is."""
    client.post("/v1/jobs", json={})
    sweep = client.post("/v1/jobs", json={"seed": [1, 2, 3]}).json()["id"]
    jobs = {job.id: job for job in store.next(9)}
    assert store.start(jobs[2], attempts=1, epochs=0)
    assert store.start(jobs[3], attempts=1, epochs=0)
    store.end(3, State.SUCCEEDED)

    def states() -> list[str]:
        return [job["state"] for job in client.get("/v1/jobs").json()["jobs"]]

    assert client.post("/v1/sweeps/9/cancel").status_code == 404
    answer = client.post(f"/v1/sweeps/{sweep}/cancel")
    assert answer.json() == {"jobs": [2, 4]}
    assert states() == ["cancelled", "succeeded", "cancelling", "queued"]
    assert client.post("/v1/jobs/cancel").json() == {"jobs": [1]}
    assert states() == ["cancelled", "succeeded", "cancelling", "cancelled"]
    assert client.post("/v1/jobs/cancel").json() == {"jobs": []}


def test_the_time_of_the_last_progress_is_told(client: TestClient) -> None:
    run = Path(client.post("/v1/jobs", json={}).json()["directory"])
    run.mkdir(parents=True)
    (run / ".beat").touch()
    os.utime(run / ".beat", (1790000000.5, 1790000000.5))
    assert client.get("/v1/jobs/1").json()["last_progress"] == 1790000000.5
    assert client.get("/v1/jobs/1/artifacts").json() == []


def test_each_submission_end_and_refusal_is_a_line_of_the_log(
    client: TestClient, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "uvicorn.error")
    client.post("/v1/jobs?priority=3", json={"name": "a"})
    client.post("/v1/jobs", json={"name": "b", "seed": [1, 2]})
    client.post("/v1/jobs", json={"epoch\u2028": 1})
    client.post("/v1/jobs", content=b"{")
    client.get("/v1/jobs/9")
    client.get("/v1/jobs", headers={"Host": "evil\x85example".encode("latin-1")})
    client.post("/v1/jobs/1/resume")
    store.start(store.next(1)[0], attempts=1, epochs=0)
    store.end(1, State.FAILED, "error: `--epochs` is\u2028odd.\nmore")
    client.post("/v1/jobs/2/cancel")
    client.delete("/v1/jobs/2")
    lines = [record.getMessage() for record in caplog.records]
    lines = [line for line in lines if "HTTP Request" not in line]
    expected = [
        "Job 1 is submitted: a, priority 3.",
        "Sweep 1 is submitted: jobs 2 to 3, priority 0.",
        r"A job is refused: epoch\u2028: `epoch\u2028` is not an option of train.py. "
        "Did you mean `epochs`?",
        "POST /v1/jobs is refused with 415: The body must have the Content-Type",
        "GET /v1/jobs/9 is refused with 404: There is no job 9.",
        "GET /v1/jobs is refused with 403: The Host header must name this machine.",
        "POST /v1/jobs/1/resume is refused with 409: Only a job that is failed,",
        "Job 1 is started, attempt 1.",
        r"Job 1 has ended, failed: error: `--epochs` is\u2028odd.",
        "Job 2 has ended, cancelled.",
        "Job 2 is deleted.",
    ]
    for line, beginning in zip(lines, expected, strict=True):
        assert line.startswith(beginning)
        assert line.isprintable()


def test_an_unexpected_error_is_logged_and_not_shown(
    client: TestClient,
    store: Store,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise ArithmeticError("a secret")

    monkeypatch.setattr(store, "page", fail)
    caplog.set_level("INFO", "uvicorn.error")
    answer = client.get("/v1/jobs")
    assert answer.status_code == 500
    assert "the service's log has it" in answer.json()["detail"]
    assert "secret" not in answer.text
    (record,) = (each for each in caplog.records if each.levelname == "ERROR")
    assert record.getMessage() == "GET /v1/jobs went wrong."
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "a secret"


def test_the_api_describes_itself(client: TestClient) -> None:
    api = client.get("/openapi.json").json()
    body = api["paths"]["/v1/jobs"]["post"]["requestBody"]
    fields = body["content"]["application/json"]["schema"]["properties"]
    assert set(fields) == {*TrainConfig.model_fields, "trials"}
    assert {"type": "array", "items": fields["epochs"]["anyOf"][0], "minItems": 1} in (
        fields["epochs"]["anyOf"]
    )
    assert client.get("/docs").status_code == 200
    json.dumps(api)
