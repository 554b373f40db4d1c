"""The page at `/` of the service.

It shows what the API answers, and works without a network: Gradio brings its fonts and
scripts.
"""

import asyncio
import os
import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from starlette.routing import Mount

from service.jobs.job_queue import Queue
from service.page.folder import Folder
from service.page.gates import Admission, OwnRoutes
from service.page.inside import InsideTab
from service.page.jobs import JobsTab
from service.page.login import LoginFirst, login_route
from service.page.models import Models
from service.page.predictions import PredictionsTab
from service.page.uploads import UploadsOnly, routes
from service.serving.routes import Serving

_CSS = """
#log pre { font-size: 12px; margin: 0; white-space: pre-wrap; }
/* Else check boxes are squeezed. */
#more-options > .form { display: grid;
  grid-template-columns: repeat(auto-fill, minmax(260px, 1fr)); }
/* A click on a cell chooses the job, not the cell's row and column. */
#jobs .selection-button { display: none; }
/* So its end stays in sight while it grows. */
#log div:has(> pre) { max-height: 180px; overflow-y: auto;
  display: flex; flex-direction: column-reverse; }
"""
_TITLE = """# kerasnorm
Train image classifiers, try them, see what dropout and batch normalization do inside.
"""
_SECONDS_IN_THE_CACHE = 3600
_SECONDS_BETWEEN_LOOKS = 0.2


def mount(
    app: FastAPI, queue: Queue | None, serving: Serving, token: str | None
) -> None:
    """Put the page at `/`. The routes that the application already has stay its own.

    Args:
        app: The application, with `is_stopping` and `guesses` in its state.
        queue: The jobs; without them the page has predictions alone.
        serving: The models.
        token: What the page asks for as a password, if anything.
    """
    # Gradio, too, puts the pictures that the page shows there.
    folder = Folder(_place(queue))
    os.environ["GRADIO_TEMP_DIR"] = str(folder.path)
    blocks = _blocks(queue, serving, folder)
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        # `login_route` stands before it.
        auth=(lambda user, password: False) if token else None,
        auth_message="Any user name; the password is the service's token.",
        css=_CSS,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
    )
    mounted = app.router.routes[-1]
    assert isinstance(mounted, Mount)
    page: Any = mounted.app
    page.router.routes[:0] = routes(blocks)
    # What is added last comes first.
    page.add_middleware(Admission, admit=blocks.admit)
    page.add_middleware(OwnRoutes)
    if token:
        page.router.routes.insert(0, login_route(page, token, app.state.guesses))
        page.add_middleware(LoginFirst, page=page)
    _live_with_the_server(app, page, folder)


def _place(queue: Queue | None) -> Path:
    """Return where the page's folder lies: where nobody else puts anything."""
    if queue is None:
        return Path(tempfile.gettempdir(), f"kerasnorm-page-{secrets.token_hex(16)}")
    return queue.state_dir / "page"


def _blocks(queue: Queue | None, serving: Serving, folder: Folder) -> UploadsOnly:
    with UploadsOnly(
        folder,
        title="kerasnorm",
        analytics_enabled=False,
        delete_cache=(_SECONDS_IN_THE_CACHE, _SECONDS_IN_THE_CACHE),
    ) as blocks:
        gr.Markdown(_TITLE)
        if queue is not None:
            with gr.Tab("Jobs"):
                JobsTab(queue.store, queue.roots, queue.gpus)
        with gr.Tab("Try") as tab:
            base = serving.config.model_base_path
            predictions = PredictionsTab(Models(base, serving.servables))
        refreshed: dict[gr.Tab, Any] = {tab: predictions}
        if queue is not None:
            with gr.Tab("Inside") as tab:
                refreshed[tab] = InsideTab(queue.store)
        for tab, part in refreshed.items():
            gr.on(
                [tab.select, blocks.load] if part is predictions else tab.select,
                part.refresh,
                part.choice,
                part.choice,
                show_progress="hidden",
                api_visibility="private",
            )
    return blocks


def _live_with_the_server(app: FastAPI, page: Any, folder: Folder) -> None:
    """Have the folder while the server runs, and let no browser keep it from ending."""
    lifespan = app.router.lifespan_context

    async def watch() -> None:
        while not app.state.is_stopping():
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
        page.stop_event.set()  # which ends the connections that browsers hold open

    @asynccontextmanager
    async def watched(app: FastAPI) -> AsyncIterator[Any]:
        folder.make()
        try:
            async with lifespan(app) as state:
                watcher = asyncio.create_task(watch())
                try:
                    yield state
                finally:
                    watcher.cancel()
        finally:
            folder.remove()

    app.router.lifespan_context = watched
