"""HTTP around the REST API: heads, bodies, other routes, probes and metrics."""

import gzip
import json
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("simdjson", reason="pip install --group serve")

from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.http_protocol import HttpProtocol
from service.serving.config import ServingConfig
from service.serving.inference import Inference
from service.serving.routes import Serving
from tests.service.serving.served import (
    AVAILABLE,
    Client,
    factor,
    publish,
    refused,
    serve,
)

H = "/v1/models/half"
PREDICT = "/v1/models/m:predict"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Path:
    directory = tmp_path_factory.mktemp("models")
    shutil.copytree(models / "half", directory / "half")
    return directory


@pytest.fixture(scope="module")
def client(base: Path) -> Iterator[Client]:
    with serve(base, max_body_bytes=10_000_000) as (client, _):
        yield client


def test_answers_are_json_and_errors_are_too(client: Client) -> None:
    for path, body in ((H, None), (f"{H}:predict", b"{}")):
        method = "GET" if body is None else "POST"
        client.connection.request(method, path, body)
        response = client.connection.getresponse()
        response.read()
        assert response.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    "content_type", ["", "application/json", "image/png", "text/plain; charset=utf-16"]
)
def test_the_content_type_is_not_looked_at(client: Client, content_type: str) -> None:
    status, answer = client.send(
        "POST", f"{H}:predict", b'{"instances": [1]}', **{"Content-Type": content_type}
    )
    assert (status, json.loads(answer)) == (200, {"predictions": [2.5]})


def test_other_routes_of_an_application_come_first(base: Path) -> None:
    serving = Serving(ServingConfig(base))
    app = FastAPI()
    app.get("/v1/jobs")(lambda: ["a job"])
    app.router.routes.extend(serving.routes)
    serving.start()
    try:
        assert serving.servables.wait_until_settled(60)
        client = TestClient(app)
        assert client.get("/v1/jobs").json() == ["a job"]
        assert client.get(H).json() == AVAILABLE
        assert client.get("/V1/nothing").status_code == 400
        assert client.get("/nothing").status_code == 404
        answer = client.post(f"{H}:predict", content=b'{"instances": [1]}')
        assert answer.json() == {"predictions": [2.5]}
        assert client.get("/openapi.json").json()["paths"].keys() == {"/v1/jobs"}
    finally:
        serving.stop()


def test_packed_bodies_are_unpacked(client: Client) -> None:
    """TensorFlow Serving's server does so wherever Content-Encoding has "gzip".

    Codings are the same in capitals (RFC 9110).
    """
    path = f"{H}:predict"
    packed = gzip.compress(b'{"instances": [1.0, 2.0]}')

    def send(body: bytes, encoding: str = "gzip") -> tuple[int, bytes]:
        return client.send("POST", path, body, **{"Content-Encoding": encoding})

    for encoding in ("gzip", "x-gzip", "GZIP"):
        status, answer = send(packed, encoding)
        assert (status, json.loads(answer)) == (200, {"predictions": [2.5, 3.0]})
    members = b"".join(map(gzip.compress, (b'{"instances": [1.', b"0", b", 2.0]}")))
    status, answer = send(members)
    assert (status, json.loads(answer)) == (200, {"predictions": [2.5, 3.0]})
    status, answer = send(packed, "deflate")  # as it is, like TensorFlow Serving's
    assert status == 400
    assert "JSON Parse error" in json.loads(answer)["error"]
    bomb = gzip.compress(b" " * 10_000_001)
    assert len(bomb) < 20_000
    for body, expected, message in (
        (packed[:-9], 400, "it ends too early"),
        (b'{"instances": [1.0]}', 400, "must be of gzip"),
        (b"", 400, "it ends too early"),
        (bomb, 413, "at most 10000000 bytes"),
    ):
        status, answer = send(body)
        assert status == expected
        assert message in json.loads(answer)["error"]


def test_a_body_in_pieces(client: Client) -> None:
    pieces = (bytes([byte]) for byte in b'{"instances": [1.0, 2.0]}')
    client.connection.request("POST", f"{H}:predict", pieces, encode_chunked=True)
    response = client.connection.getresponse()
    assert json.loads(response.read()) == {"predictions": [2.5, 3.0]}


def test_heads_that_are_too_long_or_too_slow(
    tmp_path: Path, scales: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(scales / "1", tmp_path / "m" / "1")
    with serve(tmp_path) as (client, _):
        address = ("127.0.0.1", client.port)
        for head in (
            b"GET /" + b"a" * 100_000,
            b"GET / HTTP/1.1\r\na: " + b"a" * 2**17,
        ):
            with socket.create_connection(address, timeout=60) as connection:
                connection.sendall(head + b"a" * 2**17)
                assert b"has at most 65536 bytes" in connection.recv(1000)
        monkeypatch.setattr(HttpProtocol, "seconds", 0.3)
        for head in (b"", b"GET / HTTP/1.1\r\nHost:"):
            with socket.create_connection(address, timeout=60) as connection:
                connection.sendall(head)
                assert connection.recv(1000) == b""
        # One that has sent its head may take longer for the rest.
        path = (
            f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18\r\n\r\n"
        )
        with socket.create_connection(address, timeout=60) as connection:
            connection.sendall(path.encode() + b'{"instances"')
            time.sleep(0.6)
            connection.sendall(b": [1]}")
            assert b" 200 OK" in connection.recv(1000)


def test_health_readiness_and_metrics(tmp_path: Path, scales: Path) -> None:
    publish(scales / "1", tmp_path / "m" / "1")
    with serve(tmp_path) as (client, _):
        assert client.send("GET", "/healthz") == (200, b"ok")
        assert client.send("GET", "/readyz") == (200, b"ok")
        for _ in range(3):
            factor(client)
        refused(client, "/versions/9")
        for name in ("a", "b", "c"):  # names that nobody has make no series
            client.send("POST", f"/v1/models/{name}:predict", b"{}")
        status, page = client.send("GET", "/monitoring/prometheus/metrics")
        lines = page.decode().splitlines()
        prefix = ":tensorflow:serving:"
        assert status == 200
        assert f'{prefix}request_count{{model_name="m",status="OK"}} 3.0' in lines
        assert (
            f'{prefix}request_count{{model_name="m",status="NOT_FOUND"}} 1.0' in lines
        )
        assert (
            f'{prefix}request_count{{model_name="(none)",status="NOT_FOUND"}} 3.0'
            in lines
        )
        latency = f'{prefix}request_latency_bucket{{API="predict",entrypoint="REST",le='
        buckets = [line for line in lines if line.startswith(latency)]
        assert len(buckets) == 34
        assert buckets[-1].endswith('le="+Inf",model_name="m"} 3.0')
        limits = [float(line.split('le="')[1].split('"')[0]) for line in buckets[:-1]]
        np.testing.assert_allclose(limits, 10 * 1.8 ** np.arange(33), rtol=1e-5)
        assert any(line.startswith(f"{prefix}runtime_latency_sum") for line in lines)


def test_an_error_that_nobody_expected_is_in_the_log_alone(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise RuntimeError("/a/secret/path")

    monkeypatch.setattr(Inference, "run", broken)
    status, answer = client.send("POST", f"{H}:predict", b'{"instances": [1]}')
    assert status == 500
    assert json.loads(answer) == {
        "error": "The request could not be answered. The log of the service says why."
    }
    assert "RuntimeError: /a/secret/path" in caplog.text
    assert "in broken" in caplog.text


def test_a_body_that_becomes_too_large_is_refused(tmp_path: Path, models: Path) -> None:
    """By what it becomes: it is small enough itself."""
    shutil.copytree(models / "echo", tmp_path / "echo")
    limits = {"max_body_bytes": 2_000_000, "max_decoded_bytes": 32_000_000}
    with serve(tmp_path, **limits) as (client, serving):
        for piece, status in (
            (b"0.5,", 200),
            (b"1,", 413),
            (b"[],", 413),
            (b"{},", 413),
        ):
            content = piece * (1_600_000 // len(piece))
            body = b'{"instances": [' + content[:-1] + b"]}"
            received, answer = client.send("POST", "/v1/models/echo:predict", body)
            assert received == status, (piece, answer[:200])
            assert status == 200 or b"bytes" in answer
        numbers = b",".join([b"1"] * 300_000)
        body = b'{"signature_name": "int64", "instances": [' + numbers + b"]}"
        status, answer = client.send("POST", "/v1/models/echo:predict", body)
        assert status == 413
        expected = (
            "The tensors of a request have at most 2000000 bytes. Received: 2400000."
        )
        assert json.loads(answer) == {"error": expected}
        assert serving.workers.room.taken == serving.workers.bodies.taken == 0
