"""With a token the page answers nobody who has not shown it."""

import asyncio
import importlib.util
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.routing import BaseRoute, Mount, Route
from starlette.testclient import TestClient

from service import guesses
from service.app import Settings, create_app
from service.jobs.job_queue import QueueConfig
from service.serving.config import ServingConfig
from service.serving.routes import Serving

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None,
    reason="needs Gradio: make serve",
)

TOKEN = "a secret"
# What anyone may ask for beside predictions: the form of the login, the description of
# the API, and whether the service is well.
OPEN = {
    *("/", "/login", "/favicon.ico", "/manifest.json", "/robots.txt", "/theme.css"),
    *("/assets/{path:path}", "/static/{path:path}"),
    *("/docs", "/docs/oauth2-redirect", "/openapi.json", "/static-offline-docs"),
    *("/healthz", "/readyz", "/monitoring/prometheus/metrics"),
}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    from service.page.mount import mount

    root = tmp_path_factory.mktemp("login")
    (root / "models").mkdir()
    serving = Serving(ServingConfig(root / "models"))
    jobs = QueueConfig(root / "state", root / "models")
    settings = Settings(serving.config, jobs, host="0.0.0.0", token=TOKEN)
    app = create_app(settings, serving)

    async def mounted() -> None:
        mount(app, app.state.queue, serving, TOKEN)

    asyncio.run(mounted())
    return app


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    return TestClient(app, "http://training.example", follow_redirects=False)


def login(client: TestClient, user: str, password: str) -> Any:
    return client.post("/login", data={"username": user, "password": password})


def calls(routes: Sequence[BaseRoute], start: str = "") -> Iterator[tuple[str, str]]:
    """All paths of an application with their methods."""
    for route in routes:
        if router := getattr(route, "original_router", None):  # FastAPI's
            yield from calls(router.routes, start)
        elif isinstance(route, Mount) and route.routes:
            yield from calls(route.routes, start + route.path)
        elif isinstance(route, Mount):
            yield "GET", start + route.path
        elif isinstance(route, Route):
            for method in route.methods or {"GET", "POST"}:
                yield method, start + route.path


def test_without_a_login_every_route_is_closed(
    app: FastAPI, client: TestClient
) -> None:
    asked = {call for call in calls(app.routes) if call[1] not in OPEN}
    paths = {path for _, path in asked}
    assert {"/config", "/gradio_api/cancel", "/gradio_api/upload"} <= paths
    assert {"/gradio_api/file={path:path}", "/v1/jobs/{job_id}/logs"} <= paths
    assert {path for _, path in calls(app.routes)} >= OPEN
    for cookie in (None, "access-token-x", f"access-token-{page_of(app).cookie_id}"):
        client.cookies.clear()
        if cookie:
            client.cookies.set(cookie, "")
        for method, path in sorted(asked):
            url = re.sub(r"{[\w:]+}", "1", path)
            answer = client.request(method, url, json={})
            assert answer.status_code == 401, (method, path)


def page_of(app: FastAPI) -> Any:
    return app.router.routes[-1].app


def test_the_form_shows_nothing_else(client: TestClient) -> None:
    form = client.get("/").text
    assert "auth_required" in form
    assert "Any user name" in form
    assert "start-a-job" not in form


@pytest.mark.parametrize("user", ["", " ", "anyone", "\u4e2d\u6587", "a" * 1000])
def test_any_user_with_the_token_comes_in(client: TestClient, user: str) -> None:
    assert login(client, user, TOKEN).json() == {"success": True}
    assert client.get("/config").json()["components"]
    assert client.get("/gradio_api/app_id").status_code == 200
    assert client.get("/logout").status_code == 302
    assert client.get("/config").status_code == 401


def test_guesses_are_few_and_in_the_log(
    client: TestClient,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Two seconds pass below. The tests after this one go on at the true time.
    now = time.monotonic() - 2
    monkeypatch.setattr(guesses, "time", SimpleNamespace(monotonic=lambda: now))
    for password in ["", "wrong", "a secre", "a secret ", "\ud800", "x" * 10_000] * 2:
        guess = {"username": "x", "password": password.encode(errors="replace")}
        answer = client.post("/login", data=guess)
        assert TOKEN not in answer.text
    assert answer.status_code == 429
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["A wrong token was given at /login from testclient."] * 10
    # The right one, too, is not looked at meanwhile.
    assert login(client, "x", TOKEN).status_code == 429
    right = {"Authorization": f"Bearer {TOKEN}"}
    assert client.get("/v1/jobs", headers=right).status_code == 429
    now += 1
    assert login(client, "x", "wrong").status_code == 400
    assert login(client, "x", "wrong").status_code == 429
    now += 1
    assert login(client, "x", TOKEN).status_code == 200


def test_guesses_that_come_together_are_no_more(app: FastAPI) -> None:
    """Each address has its own count."""

    async def guess() -> int:
        body = b"username=x&password=wrong"
        messages = [{"type": "http.request", "body": body[:9], "more_body": True}]
        messages += [{"type": "http.request", "body": body[9:]}]
        statuses = list[int]()

        async def receive() -> Any:
            await asyncio.sleep(0.01)
            return messages.pop(0)

        async def send(message: Any) -> None:
            statuses.append(message.get("status", 0))

        form = b"application/x-www-form-urlencoded"
        headers = [(b"host", b"x"), (b"content-type", form)]
        scope = {
            **{"type": "http", "method": "POST", "path": "/login", "scheme": "http"},
            **{"query_string": b"", "http_version": "1.1", "server": ("x", 80)},
            **{"headers": headers, "root_path": "", "client": ("10.0.0.1", 1)},
        }
        await app(scope, receive, send)
        return statuses[0]

    async def crowd() -> list[int]:
        return await asyncio.gather(*(guess() for _ in range(100)))

    answers = asyncio.run(crowd())
    assert answers.count(400) <= 12  # in a second or two
    assert answers.count(400) + answers.count(429) == 100


def test_logins_are_few(app: FastAPI, client: TestClient) -> None:
    page = page_of(app)
    page.tokens |= {f"old {number}": "" for number in range(1200)}
    assert login(client, "x", TOKEN).status_code == 200
    assert len(page.tokens) <= 1000
    assert client.get("/config").status_code == 200


def test_a_login_is_for_this_site_alone(client: TestClient) -> None:
    cookie = login(client, "x", TOKEN).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie


def test_there_are_no_logins_without_a_token(tmp_path: Path) -> None:
    from service.page.mount import mount

    (tmp_path / "models").mkdir()
    serving = Serving(ServingConfig(tmp_path / "models"))
    app = create_app(Settings(serving.config), serving)

    async def mounted() -> None:
        mount(app, None, serving, None)

    asyncio.run(mounted())
    client = TestClient(app, "http://localhost")
    assert client.get("/config").status_code == 200
