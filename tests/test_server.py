"""What the server of the service does around the application."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import uvicorn

from service import server
from service.__main__ import _parser
from tests.services import Service


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def test_nobody_can_connect_before_there_is_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the page is made, which takes seconds; when the server runs, they can."""
    port = free_port()
    could_connect = []

    def try_to_connect(*_: object, **__: object) -> None:
        with contextlib.closing(socket.socket()) as client:
            could_connect.append(client.connect_ex(("127.0.0.1", port)) == 0)

    monkeypatch.setattr(server, "_add_page", try_to_connect)
    monkeypatch.setattr(uvicorn.Server, "run", try_to_connect)
    monkeypatch.setattr(
        server, "signal", SimpleNamespace(SIGINT=2, SIGTERM=15, signal=print)
    )
    options = ["--port", str(port), "--grpc-port", "0", "--serve-only"]
    options += ["--model-base-path", str(tmp_path)]
    server.serve(_parser().parse_args(options), None)
    assert could_connect == [False, True]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path, "--timeout", 1).start()
    yield service
    if service.process.poll() is None:
        service.kill()


def test_a_client_that_does_not_read_does_not_keep_the_service(
    service: Service,
) -> None:
    job = service.submit({"dataset": "nosuchset"})
    service.run(job).mkdir(parents=True, exist_ok=True)
    with (service.run(job) / "large").open("wb") as file:
        file.truncate(2**30)
    with socket.create_connection(("127.0.0.1", service.port)) as client:
        path = f"/v1/jobs/{job}/artifacts/large".encode()
        client.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
        service.stop()
    assert service.process.returncode == 0
