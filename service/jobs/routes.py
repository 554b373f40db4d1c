"""The jobs over HTTP."""

import asyncio
import contextlib
import mimetypes
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from pathlib import Path, PurePath
from typing import Annotated, Any

from fastapi import (
    APIRouter,
    Depends,
    Header,
    HTTPException,
    Query,
    Request,
    Response,
)
from fastapi import (
    Path as PathParameter,
)
from fastapi.responses import PlainTextResponse, StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event

from service.jobs import answers
from service.jobs.answers import Artifact, JobDetail, JobPage, Sweep
from service.jobs.runs import LOG, Metric, history
from service.jobs.store import RESUMABLE, Job, State, Store
from service.jobs.submission import BODY_SCHEMA, configs_of, values_of

PATHS = ("/v1/jobs", "/v1/sweeps")

_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_BETWEEN_SIGNS = 10.0  # of life, for whoever follows a quiet log
_BYTES_AT_A_TIME = 2**20

routes = APIRouter(tags=["jobs"])


# SQLite counts from 1 in 63 bits.
Number = Annotated[int, PathParameter(ge=1, lt=2**63)]


def _store(request: Request) -> Store:
    return request.app.state.queue.store


def _job(job_id: Number, request: Request) -> Job:
    job = _store(request).get(job_id)
    if job is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"There is no job {job_id}.")
    return job


Stored = Annotated[Store, Depends(_store)]
Found = Annotated[Job, Depends(_job)]


@routes.post(
    "/v1/jobs",
    status_code=HTTPStatus.CREATED,
    openapi_extra={"requestBody": BODY_SCHEMA},
)
def submit(
    request: Request,
    values: Annotated[dict[str, Any], Depends(values_of)],
    store: Stored,
    priority: Annotated[int, Query(ge=-1000, le=1000)] = 0,
) -> JobDetail | Sweep:
    """Queue a job, or one for each combination of values where a field has a list.

    The body holds train.py's options: `{"model": "mlp", "epochs": 3}`.
    """
    swept, configs = configs_of(values, request.app.state.queue.roots)
    if not swept:
        return answers.detail(store.add(configs[0], priority))
    number, jobs = store.add_sweep(swept, configs, priority)
    return answers.sweep(number, swept, jobs)


@routes.get("/v1/jobs")
def list_jobs(
    store: Stored,
    state: State | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    offset: Annotated[int, Query(ge=0, lt=2**63)] = 0,
) -> JobPage:
    """The jobs, the newest first."""
    jobs = [answers.summary(job) for job in store.page(state, limit, offset)]
    return JobPage(total=store.count(state), jobs=jobs)


@routes.get("/v1/jobs/{job_id}")
def get_job(job: Found) -> JobDetail:
    """All that is known about a job."""
    return answers.detail(job)


@routes.get("/v1/jobs/{job_id}/metrics")
def get_metrics(job: Found) -> list[dict[str, Metric]]:
    """The metrics of each finished epoch; null where they are not finite."""
    return history(job.directory)


@routes.get("/v1/jobs/{job_id}/logs", response_class=PlainTextResponse)
def get_logs(
    request: Request,
    job: Found,
    accept: Annotated[str, Header()] = "",
    last_event_id: Annotated[int, Header(ge=0, lt=2**63)] = 0,
) -> Response:
    """What the trainer has printed.

    With `Accept: text/event-stream` line by line as server-sent events until the job
    has ended; the last event is named `end` and holds its state. The id of an event is
    the place in the log where its line ends.
    """
    if "text/event-stream" in accept:
        return EventSourceResponse(_follow(request, job.id, last_event_id))
    try:
        return _file(job.directory / LOG)
    except OSError:
        return PlainTextResponse("")


@routes.post("/v1/jobs/{job_id}/cancel")
def cancel(job: Found, store: Stored) -> JobDetail:
    """Take a job from the queue, or stop its trainer; what it has done stays."""
    if not store.cancel(job.id):
        raise HTTPException(
            HTTPStatus.CONFLICT, f"Job {job.id} has ended: it has {job.state}."
        )
    return answers.detail(store.get(job.id) or job)


@routes.post("/v1/jobs/{job_id}/resume")
def resume(job: Found, store: Stored) -> JobDetail:
    """Queue a failed, cancelled or interrupted job again, from its checkpoint."""
    if not store.requeue(job.id, RESUMABLE):
        raise HTTPException(
            HTTPStatus.CONFLICT,
            "Only a job that is failed, cancelled or interrupted can be resumed. "
            f"Job {job.id} is {job.state}.",
        )
    return answers.detail(store.get(job.id) or job)


@routes.get("/v1/jobs/{job_id}/artifacts")
def list_artifacts(job: Found) -> list[Artifact]:
    """The files of the run."""
    found = []
    # Not by `rglob`, which fails where a run that goes on removes a directory.
    for directory, _, names in os.walk(job.directory):
        for path in (Path(directory, name) for name in names):
            own = path.relative_to(job.directory)
            with contextlib.suppress(OSError):
                if path.is_file() and not _is_hidden(own):
                    size = path.stat().st_size
                    found.append(Artifact(path=own.as_posix(), size=size))
    return sorted(found, key=lambda artifact: artifact.path)


@routes.get("/v1/jobs/{job_id}/artifacts/{path:path}")
def get_artifact(job: Found, path: str) -> Response:
    """A file of the run."""
    directory = job.directory.resolve()
    try:
        file = (directory / path).resolve(strict=True)
        # Opening a pipe would wait for someone to write.
        if file.is_file() and not _is_hidden(file.relative_to(directory)):
            return _file(file)
    except (OSError, RuntimeError, ValueError):  # no file, no possible name, outside
        pass
    raise HTTPException(HTTPStatus.NOT_FOUND, f"Job {job.id} has no file {path}.")


@routes.delete("/v1/jobs/{job_id}", status_code=HTTPStatus.NO_CONTENT)
def delete(job: Found, store: Stored) -> None:
    """Forget an ended job and remove its run; the model that it exported stays."""
    if not store.delete(job.id):
        raise HTTPException(
            HTTPStatus.CONFLICT, f"Job {job.id} is {job.state}. Cancel it first."
        )
    shutil.rmtree(job.directory, ignore_errors=True)


@routes.get("/v1/sweeps/{sweep_id}")
def get_sweep(sweep_id: Number, store: Stored) -> Sweep:
    """The jobs of a sweep side by side."""
    fields = store.sweep_fields(sweep_id)
    if fields is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"There is no sweep {sweep_id}.")
    return answers.sweep(sweep_id, fields, store.of_sweep(sweep_id))


async def _follow(request: Request, job: int, place: int) -> AsyncIterator[bytes]:
    """The log from a place on, line by line, until the job has ended."""
    last_sign = time.monotonic()
    while not request.app.state.is_stopping():
        state, lines = await asyncio.to_thread(_read_on, _store(request), job, place)
        for line in lines:
            place += len(line)
            text = line.decode(errors="replace").rstrip("\r\n")
            yield format_sse_event(data_str=text, id=str(place))
        if lines:
            continue
        if state not in (State.QUEUED, State.RUNNING):
            yield format_sse_event(data_str=state, event="end")
            return
        if time.monotonic() > last_sign + _SECONDS_BETWEEN_SIGNS:
            yield KEEPALIVE_COMMENT
            last_sign = time.monotonic()
        await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)


def _read_on(store: Store, number: int, place: int) -> tuple[str, list[bytes]]:
    """The state of a job, and the lines that its log has had from a place on."""
    job = store.get(number)
    if job is None:
        return "deleted", []
    # The state was read before the log, so that nothing is missed at the end.
    is_open = job.state in (State.QUEUED, State.RUNNING)
    try:
        with (job.directory / LOG).open("rb") as file:
            file.seek(place)
            text = file.read(_BYTES_AT_A_TIME)
    except OSError:
        return job.state, []
    goes_on = is_open or len(text) == _BYTES_AT_A_TIME
    is_endless = len(text) == _BYTES_AT_A_TIME and b"\n" not in text
    if goes_on and not is_endless:
        text = text[: text.rfind(b"\n") + 1]  # the rest of the line comes next time
    return job.state, text.splitlines(keepends=True)


def _file(path: Path) -> Response:
    """A file as it is now, also if it grows while it is sent.

    Raises:
        OSError: If it is no file that can be read.
    """
    file = path.open("rb")
    size = os.fstat(file.fileno()).st_size

    def parts() -> Iterator[bytes]:
        with file:
            left = size
            while left and (part := file.read(min(left, _BYTES_AT_A_TIME))):
                left -= len(part)
                yield part

    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    headers = {"Content-Length": str(size)}
    return StreamingResponse(parts(), media_type=media_type, headers=headers)


def _is_hidden(path: PurePath) -> bool:
    return any(part.startswith(".") for part in path.parts)
