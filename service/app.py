"""The ASGI application."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from filelock import FileLock, Timeout

from service import jobs
from service.paths import Roots
from service.runner import Runner
from service.security import Guard, is_loopback
from service.store import Store
from service.trainers import LocalTrainers, Trainers
from training.errors import UserError
from training.files import check_writable

DESCRIPTION = """
Training jobs: submit one with `POST /v1/jobs`, follow it, take its results.
"""


@dataclass(frozen=True)
class Settings:
    """What the service is told; `python -m service --help` explains it.

    Args:
        state_dir: Where jobs and runs are kept; one service at a time uses it.
        exports: The directory of models: jobs export to it.
        host: Where the service listens.
        data_roots: Where jobs may take data from.
        token: What job calls must show.
        slots: How many jobs run at a time.
        retries: How often a trainer that died without finishing an epoch is started
            again.
        max_body_bytes: The largest body of a prediction.
        trainers: Where trainers run.
    """

    state_dir: Path
    exports: Path
    host: str = "127.0.0.1"
    data_roots: tuple[Path, ...] = ()
    token: str | None = None
    slots: int = 1
    retries: int = 3
    max_body_bytes: int = 2**26
    trainers: Trainers = field(default_factory=LocalTrainers)


_MAX_JOB_BYTES = 2**16


def create_app(
    settings: Settings, is_stopping: Callable[[], bool] = lambda: False
) -> FastAPI:
    """Makes the application; its jobs run from its start-up to its shutdown.

    Args:
        settings: What the service is told.
        is_stopping: Whether the server is about to stop; answers without an end of
            their own end then.

    Raises:
        UserError: If the state directory cannot be used, or another service uses it.
    """
    check_writable(settings.state_dir, "--state-dir")
    lock = FileLock(settings.state_dir / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"Another service uses {settings.state_dir}. Stop it, or give this one "
            "another --state-dir."
        ) from error
    store = Store(settings.state_dir / "jobs.sqlite")
    runner = Runner(
        store, settings.trainers, slots=settings.slots, retries=settings.retries
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        runner.start()
        yield
        await asyncio.to_thread(runner.stop)
        store.close()
        lock.release()

    app = FastAPI(title="kerasnorm", description=DESCRIPTION, lifespan=lifespan)
    app.state.store = store
    app.state.roots = Roots(
        runs=settings.state_dir / "runs",
        exports=settings.exports,
        data=settings.data_roots,
    )
    app.state.is_stopping = is_stopping
    app.include_router(jobs.routes)
    app.add_exception_handler(sqlite3.OperationalError, _cannot_be_kept)
    app.add_middleware(
        Guard,
        loopback=is_loopback(settings.host),
        token=settings.token,
        jobs=jobs.PATHS,
        max_job_bytes=_MAX_JOB_BYTES,
        max_bytes=settings.max_body_bytes,
    )
    return app


async def _cannot_be_kept(request: Request, error: Exception) -> JSONResponse:
    message = f"The table of jobs cannot be used now: {error}. Is the disk full?"
    return JSONResponse({"detail": message}, HTTPStatus.INSUFFICIENT_STORAGE)
