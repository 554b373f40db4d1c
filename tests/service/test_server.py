"""What the server of the service does around the application."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn

from service import server
from service.options import ServiceOptions
from tests.service.services import Service, wait_until


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

    monkeypatch.setattr(server, "add_page", try_to_connect)
    monkeypatch.setattr(uvicorn.Server, "run", try_to_connect)
    monkeypatch.setattr(
        server, "signal", SimpleNamespace(SIGINT=2, SIGTERM=15, signal=print)
    )
    options = ["--port", str(port), "--grpc-port", "0", "--serve-only"]
    options += ["--model-base-path", str(tmp_path)]
    server.serve(ServiceOptions.read(options), None)
    assert could_connect == [False, True]


def test_grpc_ends_before_the_application() -> None:
    """Which unloads the models that gRPC still uses."""
    ends = []
    ended = threading.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        ends.append("application")
        await send({"type": "lifespan.shutdown.complete"})

    def finish() -> None:
        ends.append("gRPC")
        ended.set()

    def end_grpc() -> threading.Event:
        threading.Timer(0.3, finish).start()
        return ended

    running = server.Server(uvicorn.Config(application, port=0, log_level="warning"))
    running.end_grpc = end_grpc
    thread = threading.Thread(target=running.run)
    thread.start()
    wait_until(lambda: running.started)
    running.should_exit = True
    thread.join()
    assert ends == ["gRPC", "application"]


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
