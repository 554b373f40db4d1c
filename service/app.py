"""The ASGI application."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.types import ASGIApp, Receive, Scope, Send

from service.failures import HANDLERS, Unexpected
from service.guesses import Guesses
from service.http_protocol import KeepAlive
from service.jobs import routes, sweep_routes
from service.jobs.job_queue import Queue, QueueConfig
from service.jobs.metrics import JobMetrics
from service.security import LOOPBACK, protect
from service.serving.config import ServingConfig
from service.serving.routes import Serving

DESCRIPTION = """
Training jobs: submit one with `POST /v1/jobs`, follow it, take its results.

Predictions by TensorFlow Serving's REST API: `POST /v1/models/NAME:predict`.
"""

MODELS = "/v1/models/"
"""Where the paths of predictions begin."""

_MAX_JOB_BYTES = 2**16
_MAX_PAGE_BYTES = 2**24


@dataclass(frozen=True)
class Settings:
    """What the service is told.

    Attributes:
        serving: How models are served.
        jobs: How jobs are run; None runs no jobs.
        host: Where the service listens.
        token: What job calls must show.
    """

    serving: ServingConfig
    jobs: QueueConfig | None = None
    host: str = LOOPBACK
    token: str | None = None


def create_app(
    settings: Settings,
    serving: Serving,
    is_stopping: Callable[[], bool] = lambda: False,
) -> FastAPI:
    """Make the application. Jobs and models live from its start-up to its shutdown.

    Args:
        settings: What the service is told.
        serving: The models.
        is_stopping: Return whether the server is about to stop. Answers that have no
            end of their own then end.

    Raises:
        UserError: If the state directory cannot be used, or another service uses it.
    """
    needed = serving.servables.needed
    queue = Queue(settings.jobs, needed) if settings.jobs else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Whatever happens, both are stopped: their threads keep the process alive.
        async with AsyncExitStack() as stack:
            serving.start()
            stack.push_async_callback(asyncio.to_thread, serving.stop)
            if queue is not None:
                queue.start()
                stack.push_async_callback(asyncio.to_thread, queue.stop)
            yield

    app = FastAPIOffline(
        title="kerasnorm", description=DESCRIPTION, lifespan=lifespan, redoc_url=None
    )
    app.state.queue = queue
    app.state.is_stopping = is_stopping
    app.state.guesses = Guesses()
    if queue is not None:
        serving.metrics.add(JobMetrics(queue.store, queue.restarts))
        for calls in (routes, sweep_routes):
            app.include_router(calls.routes)
        for error, handler in HANDLERS.items():
            app.add_exception_handler(error, handler)
    # Added last: they take all other paths below /v1/.
    app.router.routes.extend(serving.routes)
    app.add_middleware(_ModelsFirst, serving=serving)
    app.add_middleware(Unexpected)
    # Added after the others, so that they come before them.
    protect(
        app,
        host=settings.host,
        token=settings.token,
        guesses=app.state.guesses,
        jobs=routes.PATHS,
        max_job_bytes=_MAX_JOB_BYTES,
        max_page_bytes=_MAX_PAGE_BYTES,
    )
    app.add_middleware(KeepAlive)
    return app


class _ModelsFirst:
    """Send predictions straight to the models.

    Through FastAPI's routes a small prediction would take twice as long.
    """

    def __init__(self, app: ASGIApp, serving: Serving) -> None:
        self._app = app
        self._serving = serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_for_models = scope["type"] == "http" and scope["path"].startswith(MODELS)
        answer = self._serving.handle if is_for_models else self._app
        await answer(scope, receive, send)
