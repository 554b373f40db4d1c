"""The queue and the directory that is its own."""

from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.app import Settings, create_app
from service.jobs.job_queue import Queue
from service.serving.routes import Serving
from training.config import TrainConfig
from training.errors import UserError


def test_one_service_uses_a_state_directory(
    client: TestClient, settings: Settings
) -> None:
    with pytest.raises(
        UserError, match=f"Another service uses {settings.jobs.state_dir}"
    ):
        create_app(settings, Serving(settings.serving))


def test_a_new_table_does_not_go_on_with_old_runs(settings: Settings) -> None:
    runs = settings.jobs.state_dir / "runs"
    for name in ("7", "12", "name", "-20", "9" * 30):
        (runs / name).mkdir(parents=True)
    queue = Queue(settings.jobs)
    assert [queue.store.add(TrainConfig(), 0).id for _ in range(2)] == [13, 14]


def test_a_state_directory_with_another_file_is_one_line(settings: Settings) -> None:
    settings.jobs.state_dir.mkdir()
    (settings.jobs.state_dir / "jobs.sqlite").write_text("no table" * 1000)
    with pytest.raises(UserError, match="`--state-dir` must hold the jobs of") as error:
        Queue(settings.jobs)
    assert f"Received: {settings.jobs.state_dir}: " in str(error.value)


def test_a_state_directory_is_made(settings: Settings, tmp_path: Path) -> None:
    state = tmp_path / "a" / "b"
    queue = Queue(replace(settings.jobs, state_dir=state))
    assert queue.store.add(TrainConfig(), 0).id == 1
    assert (queue.roots.runs, queue.roots.exports, queue.roots.data) == (
        *(state / "runs", settings.jobs.exports),
        settings.jobs.data_roots,
    )
