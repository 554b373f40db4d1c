"""Who is refused: hosts, origins, a wrong token, bodies."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service import guesses, security
from service.app import Settings, create_app
from service.serving.routes import Serving


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "127.0.0.1:8501"}, 200),
        ({"Host": "[::1]:8501"}, 200),
        ({"Host": "LOCALHOST"}, 200),
        ({"Host": "LocalHost:8501"}, 200),
        ({"Host": "localhost.:8501"}, 200),
        ({"Host": "localhost:"}, 200),
        ({"Host": "[::FFFF:127.0.0.1]:8501"}, 200),
        ({"Host": "[::ffff:10.0.0.1]"}, 403),
        ({"Host": "localhost..evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "LOCALHOST:8501", "Origin": "http://localhost:8501"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "localhost.evil.example"}, 403),
        ({"Host": "evil@localhost"}, 403),
        ({"Host": "localhost#evil"}, 403),
        ({"Host": "["}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": "http://localhost:8501"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost:3000"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_pages_elsewhere_are_kept_out(
    client: TestClient, headers: dict[str, str], status: int
) -> None:
    answer = client.get("/v1/jobs", headers=headers)
    assert answer.status_code == status
    assert client.post("/v1/jobs", headers=headers, json={}).status_code == (
        201 if status == 200 else 403
    )


def test_every_job_call_needs_the_token(settings: Settings) -> None:
    guarded = replace(settings, host="0.0.0.0", token="long word")
    app = create_app(guarded, Serving(guarded.serving))
    client = TestClient(app, base_url="http://training.example")
    calls = [
        *(("GET", "/v1/jobs"), ("POST", "/v1/jobs"), ("GET", "/v1/jobs/1")),
        *(
            ("DELETE", "/v1/jobs/1"),
            ("GET", "/v1/sweeps/1"),
            ("GET", "/v1/jobs/1/logs"),
        ),
    ]
    for method, path in calls:
        for headers in ({}, {"Authorization": "Bearer word"}, {"Authorization": "x"}):
            refused = client.request(method, path, headers=headers)
            assert refused.status_code == 401
            assert "long word" not in refused.text
    for scheme in ("Bearer", "bearer", "BEARER", "bEaReR ", "Bearer  "):
        right = {"Authorization": f"{scheme} long word"}
        assert client.post("/v1/jobs", json={}, headers=right).status_code == 201
    for wrong in ("Basic long word", "long word", "Bearer", "Bearerlong word", ""):
        answer = client.get("/v1/jobs", headers={"Authorization": wrong})
        assert answer.status_code == 401


def test_tokens_are_guessed_slowly(
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(guesses, "time", SimpleNamespace(monotonic=lambda: now))
    guarded = replace(settings, host="0.0.0.0", token="long word")
    app = create_app(guarded, Serving(guarded.serving))
    client = TestClient(app, base_url="http://training.example")
    other = TestClient(app, "http://training.example", client=("10.0.0.9", 1))

    def call(token: str | None, by: TestClient = client) -> Any:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return by.get("/v1/jobs", headers=headers)

    # Who shows no token does not guess.
    assert [call(None).status_code for _ in range(20)] == [401] * 20
    assert [call("guess").status_code for _ in range(12)] == [401] * 10 + [429] * 2
    lines = [record.getMessage() for record in caplog.records]
    wrong = "A wrong token was given at a job call from testclient."
    assert lines.count(wrong) == 10
    # The right one, too, is not looked at meanwhile; elsewhere it is.
    refused = call("long word")
    assert refused.status_code == 429
    assert refused.headers["Retry-After"] == "1"
    assert "Wait a second" in refused.json()["detail"]
    assert call("long word", other).status_code == 200
    now += 1
    assert call("guess").status_code == 401
    assert call("guess").status_code == 429
    now += 1
    assert call("long word").status_code == 200


@pytest.mark.parametrize(
    ("version", "headers", "status"),
    [
        ("1.0", [], 200),
        ("1.0", [(b"host", b"evil.example")], 403),
        ("1.0", [(b"origin", b"null")], 403),
        ("1.0", [(b"origin", b"http://evil.example")], 403),
        ("1.1", [], 403),
        ("1.1", [(b"host", b"localhost"), (b"host", b"evil.example")], 403),
        ("1.1", [(b"host", b"localhost"), (b"origin", b"")], 403),
    ],
)
def test_a_health_check_needs_no_host(
    client: TestClient,
    version: str,
    headers: list[tuple[bytes, bytes]],
    status: int,
) -> None:
    """HAProxy asks by HTTP/1.0 without Host; no browser does."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        **{"type": "http", "method": "GET", "path": "/v1/jobs", "headers": headers},
        **{"query_string": b"", "http_version": version, "server": ("localhost", 80)},
    }
    asyncio.run(client.app(scope, receive, send))
    assert sent[0]["status"] == status


def test_a_body_that_is_too_large_is_refused(client: TestClient) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    headers = {"Content-Type": "application/json"}
    for content in (b" " * 100_000, parts()):
        answer = client.post("/v1/jobs", content=content, headers=headers)
        assert answer.status_code == 413
        assert answer.json()["detail"] == "The body must have at most 65,536 bytes."


@pytest.mark.parametrize(
    ("end", "status", "reason"),
    [
        (None, 408, "The body must arrive within 0 seconds."),
        ({"type": "http.disconnect"}, 400, "The client has gone."),
    ],
)
def test_a_body_that_does_not_come(
    client: TestClient,
    monkeypatch: pytest.MonkeyPatch,
    end: dict[str, str] | None,
    status: int,
    reason: str,
) -> None:
    """After its beginning nothing more comes, or the connection ends."""
    monkeypatch.setattr(security, "_SECONDS_FOR_A_BODY", 0.2)
    beginning = {"type": "http.request", "body": b"{", "more_body": True}
    messages = [beginning, *([end] if end else [])]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {
        **{"type": "http", "method": "POST", "path": "/v1/jobs", "headers": headers},
        **{"query_string": b"", "http_version": "1.1", "server": ("localhost", 80)},
    }
    asyncio.run(client.app(scope, receive, send))
    assert sent[0]["status"] == status
    assert json.loads(sent[1]["body"]) == {"detail": reason}
    assert client.get("/v1/jobs").json()["total"] == 0
