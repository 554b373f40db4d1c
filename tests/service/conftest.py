"""An application without a runner, shared by the tests of the service."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.app import Settings, create_app
from service.jobs.job_queue import Queue, QueueConfig
from service.jobs.store import Store
from service.serving.config import ServingConfig
from service.serving.routes import Serving

URL = "http://localhost:8501"


@pytest.fixture(autouse=True)
def log_reaches_pytest(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what a service of another test has told uvicorn's loggers."""
    loggers = [logging.getLogger(name) for name in ("uvicorn", "uvicorn.error")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        monkeypatch.setattr(logger, "propagate", True)
        monkeypatch.setattr(logger, "disabled", False)
        logger.setLevel(logging.NOTSET)
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "data" / "pictures").mkdir(parents=True)
    exports = tmp_path / "models"
    jobs = QueueConfig(tmp_path / "state", exports, data_roots=(tmp_path / "data",))
    return Settings(ServingConfig(exports), jobs)


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings, Serving(settings.serving))


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    # Without `with`, the application does not start up: no runner.
    return TestClient(app, base_url=URL)


@pytest.fixture
def store(app: FastAPI) -> Store:
    queue: Queue = app.state.queue
    return queue.store
