"""What the server of the service does around the application."""

import asyncio
import contextlib
import inspect
import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn

from service import listening, server
from service.options import ServiceOptions
from tests.service.services import wait_until


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def test_nobody_can_connect_before_there_is_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not while the page is made, which takes seconds; then they can."""
    port = free_port()
    could_connect = []

    def try_to_connect(*_: object, **__: object) -> None:
        with contextlib.closing(socket.socket()) as client:
            could_connect.append(client.connect_ex(("127.0.0.1", port)) == 0)

    monkeypatch.setattr(server, "add_page", try_to_connect)
    monkeypatch.setattr(uvicorn.Server, "run", try_to_connect)
    monkeypatch.setattr(
        listening, "signal", SimpleNamespace(SIGINT=2, SIGTERM=15, signal=print)
    )
    options = ["--port", str(port), "--grpc-port", "0", "--serve-only"]
    options += ["--model-base-path", str(tmp_path)]
    server.serve(ServiceOptions.read(options), None)
    assert could_connect == [False, True]


@pytest.mark.parametrize(
    ("options", "peer", "client"),
    [
        ("", "127.0.0.1", "127.0.0.1"),
        ("--trusted-proxy 127.0.0.1", "127.0.0.1", "203.0.113.9"),
        ("--trusted-proxy 10.0.0.0/24", "10.0.0.2", "203.0.113.9"),
        ("--trusted-proxy 10.0.0.0/24", "127.0.0.1", "127.0.0.1"),
        ("--trusted-proxy ::1 --trusted-proxy 10.0.0.2", "10.0.0.2", "203.0.113.9"),
    ],
)
def test_only_a_trusted_proxy_says_who_calls(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: str,
    peer: str,
    client: str,
) -> None:
    """What a caller itself puts into X-Forwarded-For stands before what proxies add."""
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    seen: list[str] = []

    async def application(scope: Any, *_: object) -> None:
        seen.append(scope["client"][0])

    def ask(running: server.Server, **_: object) -> None:
        running.config.load()
        headers = [(b"x-forwarded-for", b"198.51.100.1, 203.0.113.9")]
        scope = {"type": "http", "client": (peer, 1), "headers": headers}
        asyncio.run(running.config.loaded_app(scope, None, None))

    monkeypatch.setattr(server, "add_page", lambda *_: None)
    monkeypatch.setattr(server, "create_app", lambda *_: application)
    monkeypatch.setattr(uvicorn.Server, "run", ask)
    monkeypatch.setattr(
        listening, "signal", SimpleNamespace(SIGINT=2, SIGTERM=15, signal=print)
    )
    words = ["--port", "0", "--grpc-port", "0", "--serve-only", *options.split()]
    words += ["--model-base-path", str(tmp_path)]
    server.serve(ServiceOptions.read(words), None)
    assert seen == [client]


def test_grpc_ends_before_the_application() -> None:
    """The application unloads the models, which gRPC still uses."""
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


@pytest.mark.parametrize(
    ("host", "shown"), [("127.0.0.1", "localhost"), ("0.0.0.0", "0.0.0.0")]
)
def test_the_last_line_of_a_start_is_the_address(
    host: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("nobody asks")

    running = server.Server(
        uvicorn.Config(application, host=host, port=0, lifespan="off", log_config=None)
    )
    ended = threading.Event()
    ended.set()
    running.end_grpc = lambda: ended
    thread = threading.Thread(target=running.run)
    thread.start()
    wait_until(lambda: running.started)
    port = running.servers[0].sockets[0].getsockname()[1]
    running.should_exit = True
    thread.join()
    assert capsys.readouterr().out.splitlines()[-1] == f"Ready: http://{shown}:{port}"


def test_a_second_ctrl_c_does_not_wait_for_grpc() -> None:
    """Nobody can connect meanwhile."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("nobody asks")

    asked = threading.Event()

    def end_grpc() -> threading.Event:
        asked.set()
        return threading.Event()

    config = uvicorn.Config(application, port=0, lifespan="off", log_level="critical")
    running = server.Server(config)
    running.end_grpc = end_grpc
    thread = threading.Thread(target=running.run)
    thread.start()
    wait_until(lambda: running.started)
    (address,) = (s.getsockname() for each in running.servers for s in each.sockets)
    running.should_exit = True  # as the first signal does
    assert asked.wait(60)
    with contextlib.closing(socket.socket()) as client:
        assert client.connect_ex(address) != 0
    assert thread.is_alive()
    running.force_exit = True  # as the second does
    thread.join(60)
    assert not thread.is_alive()


def test_what_it_relies_on_in_uvicorn() -> None:
    """`startup` and `shutdown` are no public API.

    Without them no address would be shown, and gRPC would end too late.
    """
    for function in (uvicorn.Server.startup, uvicorn.Server.shutdown):
        assert inspect.iscoroutinefunction(function)
        assert list(inspect.signature(function).parameters) == ["self", "sockets"]
    assert not hasattr(uvicorn.Server, "end_grpc")
    base = uvicorn.Server(uvicorn.Config(lambda *_: None))
    assert (base.should_exit, base.force_exit) == (False, False)
