"""The HTTP API of the jobs, on a queue that no runner takes from."""

import json
import time

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
    for key in ("progress", "metrics", "result", "started", "ended"):
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
