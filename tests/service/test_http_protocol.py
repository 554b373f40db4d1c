"""Connections with limits to heads; and what they rely on in uvicorn."""

import asyncio
import contextlib
import inspect
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import (
    HttpToolsProtocol,
    RequestResponseCycle,
)

from service.http_protocol import HttpProtocol, KeepAlive
from tests.service.services import wait_until

REQUEST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the request's headers and body as JSON."""
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            break
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    answer = json.dumps({"headers": headers, "body": body.decode()}).encode()
    length = str(len(answer)).encode()
    start = {"type": "http.response.start", "status": 200}
    await send({**start, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": answer})


@pytest.fixture
def server() -> Iterator[uvicorn.Server]:
    config = uvicorn.Config(
        KeepAlive(echo), port=0, http=HttpProtocol, lifespan="off", log_level="critical"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    yield server
    server.should_exit = True
    thread.join()


@pytest.fixture
def connection(server: uvicorn.Server) -> Iterator[socket.socket]:
    (address,) = (s.getsockname() for each in server.servers for s in each.sockets)
    with socket.create_connection(address, timeout=60) as client:
        yield client


def ask(connection: socket.socket, request: bytes) -> dict[str, Any]:
    connection.sendall(request)
    answer = b""
    while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
        part = connection.recv(2**20)
        assert part, answer
        answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert (b"connection: keep-alive" in head) == (b"Keep-Alive" in request)
    return json.loads(body)


def test_http_1_0_keeps_a_connection_that_is_asked_for(
    connection: socket.socket,
) -> None:
    head = REQUEST.replace(b"1.1", b"1.0") + b"Connection: Keep-Alive\r\n"
    for _ in range(2):
        assert ask(connection, head + b"\r\nbody")["body"] == "body"
    # Nobody has asked this time.
    assert ask(connection, REQUEST.replace(b"1.1", b"1.0") + b"\r\nbody")
    assert connection.recv(1000) == b""


@pytest.mark.parametrize(
    ("asked", "length", "said"),
    [
        (b"keep-alive", True, b"keep-alive"),
        (b"x, Keep-Alive", True, b"keep-alive"),
        (b"keep-alive", False, b"close"),
        (b"close", True, b"close"),
        (b"", True, b"close"),
    ],
)
def test_http_1_0_is_told_what_becomes_of_its_connection(
    asked: bytes, length: bool, said: bytes
) -> None:
    """Kept only if the end of the answer can be seen from its length."""
    sent: list[dict[str, Any]] = []

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"0")] if length else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    for version, expected in (("1.0", said), ("1.1", None)):
        scope = {"type": "http", "http_version": version}
        scope["headers"] = [(b"connection", asked)]
        asyncio.run(KeepAlive(answer)(scope, None, send))
        assert dict(sent.pop()["headers"]).get(b"connection") == expected


def test_a_head_that_is_too_long_is_refused(connection: socket.socket) -> None:
    long = b"x-long: " + b"x" * 60_000 + b"\r\n\r\n"
    assert ask(connection, REQUEST + long + b"body")["body"] == "body"
    connection.sendall(REQUEST + b"x-long: " + b"x" * 70_000)
    answer = connection.recv(1000)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"The head of a request has at most 65536 bytes.")


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nx: " + b"x" * 70_000,
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: localhost",
        b"GET / HTTP/1.1\r\nHost: localhost" + b"\r\nx: yy" * 10_000,
        # Behind other requests, whose bytes do not count.
        REQUEST + b"\r\nbody" + REQUEST + b"x: " + b"x" * 65_500,
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 50
        + b"GET / HTTP/1.1\r\nx: "
        + b"x" * 65_530,
    ],
)
def test_a_whole_head_that_is_too_long_is_refused(
    connection: socket.socket, head: bytes
) -> None:
    """It comes at once, so that it is parsed before anyone could look at it."""
    connection.sendall(head + b"\r\n\r\n")
    answer = b""
    while part := connection.recv(2**20):
        answer += part
    assert b"HTTP/1.1 400 " in answer
    assert answer.endswith(b"The head of a request has at most 65536 bytes.")


@pytest.mark.parametrize("extra", [b"0\r\nx: %s\r\n\r\n", b"1;%s\r\na\r\n0\r\n\r\n"])
def test_what_stands_around_chunks_has_the_same_limit(
    connection: socket.socket, extra: bytes
) -> None:
    """Trailers and extensions: they are taken and passed over up to it."""
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = ask(connection, head + extra % (b"x" * 60_000))
    assert "x" not in answer["headers"]
    connection.sendall(head + extra % (b"x" * 200_000))
    assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")


def test_a_body_may_be_longer_than_a_head(connection: socket.socket) -> None:
    head = REQUEST.replace(b"Content-Length: 4", b"Content-Length: 200000")
    body = b"x" * 200_000
    assert ask(connection, head + b"\r\n" + body)["body"] == body.decode()


def test_a_head_that_is_too_slow_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch, connection: socket.socket
) -> None:
    monkeypatch.setattr(HttpProtocol, "seconds", 0.2)
    # The next head has its time from its first byte on.
    assert ask(connection, REQUEST + b"\r\nbody")["body"] == "body"
    time.sleep(0.5)
    assert ask(connection, REQUEST + b"\r\nbody")["body"] == "body"
    connection.sendall(b"POST / HT")
    assert connection.recv(1000) == b""


def test_a_client_that_reads_nothing_loses_its_connection(
    monkeypatch: pytest.MonkeyPatch, server: uvicorn.Server, connection: socket.socket
) -> None:
    monkeypatch.setattr(HttpProtocol, "seconds", 1.0)
    body = b"x" * 20_000_000
    head = REQUEST.replace(b"Content-Length: 4", b"Content-Length: %d" % len(body))
    # One that reads slowly gets all of it.
    connection.sendall(head + b"\r\n" + body)
    received = 0
    while received < len(body):
        received += len(connection.recv(1_000_000))
        time.sleep(0.02)
    connection.sendall(head + b"\r\n" + body)
    wait_until(lambda: not server.server_state.connections)
    received = 0
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(2**20):
            received += len(part)
    assert received < len(body)


def test_requests_that_wait_for_others_are_limited(connection: socket.socket) -> None:
    """Each takes a hundred times its bytes."""
    connection.sendall(b"GET / HTTP/1.1\r\n\r\n" * 101)
    connection.settimeout(60)
    answers = b""
    while answers.count(b"HTTP/1.1 200") < 101:
        answers += connection.recv(2**20)
    with contextlib.suppress(ConnectionError):
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n" * 2000)
        while part := connection.recv(2**20):
            answers += part
    assert answers.count(b"HTTP/1.1 200") < 2101


def test_an_offer_of_http_2_is_passed_over(connection: socket.socket) -> None:
    """Of a head only; the same words in a body are the client's."""
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n"
    body = b"\r\nupgrade: h2c"
    head = REQUEST.replace(b"Content-Length: 4", b"Content-Length: %d" % len(body))
    answer = ask(connection, head + offer + body)
    assert answer["body"] == body.decode()
    assert answer["headers"]["x-upgrade"] == "h2c"
    assert "upgrade" not in answer["headers"]


def test_what_it_relies_on_in_uvicorn() -> None:
    """These are no public API; a uvicorn without them would lose the limits."""
    overridden = (
        *("connection_made", "connection_lost", "data_received"),
        *("on_message_begin", "on_url", "on_header", "on_headers_complete"),
        *("on_body", "on_message_complete", "pause_writing", "resume_writing"),
    )
    for name in overridden:
        expected = inspect.signature(getattr(HttpToolsProtocol, name)).parameters
        received = inspect.signature(getattr(HttpProtocol, name)).parameters
        assert list(received) == list(expected)
    assert list(inspect.signature(HttpToolsProtocol.send_400_response).parameters) == [
        "self",
        "msg",
    ]
    config = uvicorn.Config(echo)
    base = HttpToolsProtocol(config, uvicorn.server.ServerState(), {}, _loop=object())
    expected = {"cycle", "loop", "transport", "scope", "parser", "pipeline"}
    assert expected <= vars(base).keys()
    for name in ("more_body", "keep_alive", "scope"):
        assert f"self.{name} = " in inspect.getsource(RequestResponseCycle)
    own = vars(HttpProtocol).keys() - set(overridden) - vars(object).keys()
    for name in own - {"__annotations__", "__module__"}:
        assert not hasattr(base, name)
