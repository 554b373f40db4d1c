"""The page: jobs, predictions and the inside of models, for people who look.

Everything it shows it reads from the same store, runs and models as the API.
"""

import asyncio
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import gradio as gr
from fastapi import FastAPI
from starlette.routing import Match, Mount
from starlette.types import Scope

from service.page_inside import InsideTab
from service.page_jobs import JobsTab
from service.page_models import Models
from service.page_try import TryTab

_API = "/v1/"
_CSS = """
#log pre { font-size: 12px; margin: 0; white-space: pre-wrap; }
/* So its end stays in sight while it grows. */
#log div:has(> pre) { max-height: 190px; overflow-y: auto;
  display: flex; flex-direction: column-reverse; }
"""
_SECONDS_IN_THE_CACHE = 3600
_SECONDS_BETWEEN_LOOKS = 0.2


def mount(app: FastAPI, token: str | None) -> None:
    """Puts the page at `/` of an application made by `create_app`.

    Args:
        app: The application; what it has routes for it keeps.
        token: What the page asks for as a password, if anything.
    """
    with gr.Blocks(
        title="kerasnorm",
        analytics_enabled=False,
        delete_cache=(_SECONDS_IN_THE_CACHE, _SECONDS_IN_THE_CACHE),
    ) as blocks:
        gr.Markdown("# kerasnorm")
        with gr.Tab("Jobs"):
            JobsTab(app.state.store, app.state.roots)
        with gr.Tab("Try") as try_tab:
            predictions = TryTab(Models(app.state.roots.exports))
        with gr.Tab("Inside") as inside_tab:
            inside = InsideTab(app.state.store)
        for tab, part in ((try_tab, predictions), (inside_tab, inside)):
            tab.select(
                part.refresh,
                part.choice,
                part.choice,
                show_progress="hidden",
                api_visibility="private",
            )

    def is_token(user: str, password: str) -> bool:
        return hmac.compare_digest(password.encode(), (token or "").encode())

    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        auth=is_token if token else None,
        auth_message="Any user name; the password is the service's token.",
        css=_CSS,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
    )
    mounted = app.router.routes.pop()
    assert isinstance(mounted, Mount)
    app.router.routes.append(_Page("/", mounted.app))
    _end_with_the_server(app, mounted.app)


def _end_with_the_server(app: FastAPI, page: Any) -> None:
    """Ends what browsers hold open, so that a server that stops does not wait."""
    lifespan = app.router.lifespan_context

    async def watch() -> None:
        while not app.state.is_stopping():
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
        page.stop_event.set()

    @asynccontextmanager
    async def watched(app: FastAPI) -> AsyncIterator[Any]:
        async with lifespan(app) as state:
            watcher = asyncio.create_task(watch())
            yield state
            watcher.cancel()

    app.router.lifespan_context = watched


class _Page(Mount):
    """All paths that are left over but the API's, whose mistakes the API answers."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether a request is for the page."""
        if scope["path"].lower().startswith(_API):
            return Match.NONE, {}
        return super().matches(scope)
