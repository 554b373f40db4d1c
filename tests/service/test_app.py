"""The application: its start-up and its shutdown."""

import pytest
from fastapi.testclient import TestClient

from service.app import Settings, create_app
from service.jobs.job_queue import Queue
from service.serving.routes import Serving
from tests.service.conftest import URL


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
    with pytest.raises(OSError, match="no room"), TestClient(app, base_url=URL):
        pass
    assert not serving.servables._poller.is_alive()
