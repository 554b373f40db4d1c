"""The limits on the number, bytes and time of requests; the end of the service."""

import concurrent.futures
import contextlib
import json
import shutil
import socket
from pathlib import Path

import pytest

pytest.importorskip("simdjson", reason="pip install --group serve")

from tests.service.serving.served import send_once, serve, until

PREDICT = "/v1/models/m:predict"


def test_stopping_finishes_what_has_begun(tmp_path: Path, models: Path) -> None:
    shutil.copytree(models / "troubles", tmp_path / "m")
    body = b'{"signature_name": "count", "inputs": [100000]}'
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        with serve(tmp_path, timeout=300) as (client, serving):
            slow = [
                pool.submit(send_once, client.port, PREDICT, body) for _ in range(3)
            ]
            until(lambda: serving.workers.under_way == 3)
        for task in slow:
            status, answer = task.result()
            assert (status, json.loads(answer)) == (200, {"outputs": [100000]})


ENDLESS = b'{"signature_name": "wait", "inputs": [1]}'


def test_time_limits_the_queue_and_its_room(tmp_path: Path, models: Path) -> None:
    shutil.copytree(models / "troubles", tmp_path / "m")
    with (
        serve(tmp_path, timeout=2, max_queue=4, threads=2) as (client, serving),
        concurrent.futures.ThreadPoolExecutor(4) as pool,
    ):

        def endless() -> tuple[int, bytes]:
            return send_once(client.port, PREDICT, ENDLESS)

        tasks = [pool.submit(endless) for _ in range(4)]
        until(lambda: serving.workers.under_way == 4)
        status, answer = client.send("POST", PREDICT, b'{"instances": [1]}')
        assert status == 429
        assert "4 requests are under way" in json.loads(answer)["error"]
        assert client.send("GET", "/healthz") == (200, b"ok")
        for task in tasks:
            status, answer = task.result()
            assert status == 504
            assert "imed out" in json.loads(answer)["error"]
        # What has run out of time has stopped, so there is room again.
        until(lambda: serving.workers.under_way == 0)
        assert client.predict("m", {"instances": [1]}) == {"predictions": [1.0]}
        assert serving.workers.bodies.taken == 0


def test_answers_that_nobody_reads_take_bounded_room(
    tmp_path: Path, models: Path
) -> None:
    shutil.copytree(models / "echo", tmp_path / "m")
    content = b"0.25," * 4_000_000  # more than sockets buffer
    body = b'{"instances": [' + content[:-1] + b"]}"
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    with (
        serve(tmp_path, max_pending_bytes=48_000_000) as (client, serving),
        contextlib.ExitStack() as stack,
    ):
        for _ in range(2):
            connection = stack.enter_context(
                socket.create_connection(("127.0.0.1", client.port))
            )
            connection.sendall(head.encode() + body)
        until(lambda: serving.workers.answers.taken > 2 * len(content))
        status, answer = client.send("POST", PREDICT, body)
        assert status == 429, answer[:200]
        # Small answers need no room.
        assert client.predict("m", {"instances": [1]}) == {"predictions": [1.0]}
        stack.close()
        until(lambda: serving.workers.answers.taken == 0)
        status, answer = client.send("POST", PREDICT, body)
        assert (status, len(answer)) == (
            200,
            len(content) + len('{"predictions":[]}') - 1,
        )


def test_bodies_that_are_too_long_too_many_or_too_slow(
    tmp_path: Path, models: Path
) -> None:
    shutil.copytree(models / "half", tmp_path / "m")
    options = {"max_body_bytes": 2000, "max_pending_bytes": 3000, "timeout": 1.5}
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1600\r\n\r\n"
    with serve(tmp_path, **options) as (client, serving):
        path = PREDICT
        address = ("127.0.0.1", client.port)
        status, answer = client.send("POST", path, b"1" * 2001)
        assert status == 413
        assert "2000" in json.loads(answer)["error"]
        with contextlib.ExitStack() as stack:
            waiting = [
                stack.enter_context(
                    socket.create_connection(("127.0.0.1", client.port))
                )
                for _ in range(2)
            ]
            for connection in waiting:
                connection.sendall(head.encode() + b"1" * 1400)
            until(lambda: serving.workers.bodies.taken == 2800)
            status, answer = send_once(client.port, path, b"1" * 300)
            assert status == 429
            for connection in waiting:
                assert b" 408 " in connection.recv(100)
        until(lambda: serving.workers.bodies.taken == 0)
        assert client.predict("m", {"instances": [1]}) == {"predictions": [2.5]}
        # A client that goes away in the middle leaves nothing behind.
        with socket.create_connection(address) as connection:
            connection.sendall(head.encode() + b"1" * 10)
            until(lambda: serving.workers.bodies.taken == 10)
        until(lambda: serving.workers.bodies.taken == 0)
