"""The metrics of the jobs, beside those of the models."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.jobs.metrics import JobMetrics
from service.jobs.rows import State
from service.jobs.store import Store
from service.serving.metrics import PATH, Metrics
from training.config import TrainConfig


def lines(store: Store, restarts: int = 0) -> list[str]:
    metrics = Metrics()
    metrics.add(JobMetrics(store, lambda: restarts))
    return metrics.page().decode().splitlines()


def test_jobs_are_counted_by_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "jobs.sqlite")
    now = 1000.0
    monkeypatch.setattr("time.time", lambda: now)
    for _ in range(3):
        job = store.add(TrainConfig(), priority=0)
        store.start(job, attempts=1, epochs=0)
    now = 1012.5
    for number, state in ((1, State.SUCCEEDED), (2, State.SUCCEEDED)):
        store.end(number, state)
    store.add(TrainConfig(), priority=0)
    page = lines(store, restarts=4)
    for state, number in (("queued", 1), ("running", 1), ("succeeded", 2)):
        assert f'kerasnorm_jobs{{state="{state}"}} {number}.0' in page
    assert 'kerasnorm_job_seconds{state="succeeded"} 25.0' in page
    for state in ("failed", "cancelled", "interrupted", "cancelling"):
        assert f'kerasnorm_jobs{{state="{state}"}} 0.0' in page
    assert "kerasnorm_trainer_restarts_total 4.0" in page
    store.close()


def test_the_service_shows_its_jobs(client: TestClient) -> None:
    page = client.get(PATH).text
    assert 'kerasnorm_jobs{state="queued"} 0.0' in page
