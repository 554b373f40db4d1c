"""The jobs over HTTP."""

from http import HTTPStatus
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
from fastapi.responses import PlainTextResponse
from fastapi.sse import EventSourceResponse
from starlette.convertors import PathConvertor, register_url_convertor

from service.jobs import answers, removal
from service.jobs.answers import Artifact, Cancelled, JobDetail, JobPage, Sweep
from service.jobs.body import BODY_SCHEMA, as_http, values_of
from service.jobs.files import file_response, files_below, open_below
from service.jobs.following import follow
from service.jobs.job_queue import Queue
from service.jobs.plan import is_search, plan_of
from service.jobs.rows import Job, State
from service.jobs.store import Store
from service.jobs.submission import SubmissionError, configs_of
from training.run.files import LOG, Metric, history

PATHS = ("/v1/jobs", "/v1/sweeps")


class _AnyPath(PathConvertor):
    """A path whose names may also hold line breaks."""

    regex = "(?s:.*)"


register_url_convertor("any", _AnyPath())


def _refused(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """Return how the description of the API names the refusals of a call."""
    detail = {"type": "object", "properties": {"detail": {"type": "string"}}}
    # Not as a `model`: FastAPI would give it the media type of the right answer.
    content = {"application/json": {"schema": {**detail, "required": ["detail"]}}}
    return {
        int(status): {"description": status.phrase, "content": content}
        for status in statuses
    }


REFUSED = _refused(
    HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.INSUFFICIENT_STORAGE
)
NOT_FOUND = _refused(HTTPStatus.NOT_FOUND)
NOT_FOUND_OR_NOT_NOW = _refused(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)
_BODY_REFUSED = _refused(
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
)
_LOG = {"text/plain": {"schema": {"type": "string"}}, "text/event-stream": {}}
routes = APIRouter(tags=["jobs"], responses=REFUSED)
_FILE = {"*/*": {"schema": {"type": "string", "format": "binary"}}}


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
    responses=_BODY_REFUSED,
    openapi_extra={"requestBody": BODY_SCHEMA},
)
def submit(
    request: Request,
    values: Annotated[dict[str, Any], Depends(values_of)],
    store: Stored,
    priority: Annotated[int, Query(ge=-1000, le=1000)] = 0,
    gpus: Annotated[int | None, Query(ge=0, le=1000)] = None,
) -> JobDetail | Sweep:
    """Queue a job, or one for each combination of values where a field has a list.

    The body holds train.py's options: `{"model": "mlp", "epochs": 3}`. With `trials`
    and a range, `{"low": 1e-4, "high": 1e-2, "log": true}`, it is a search: Optuna
    draws the values of so many jobs, each when it starts. Each job gets `gpus` GPUs, by
    default one where the service has any.
    """
    queue: Queue = request.app.state.queue
    plan = None
    try:
        queue.gpus.check(gpus)
    except SubmissionError as error:
        raise as_http(error, "query") from error
    try:
        if is_search(values):
            plan, swept, config = plan_of(values, queue.roots)
            configs = [config] * plan.trials
        else:
            swept, configs = configs_of(values, queue.roots)
    except SubmissionError as error:
        raise as_http(error) from error
    if not swept:
        return answers.detail(store.add(configs[0], priority, gpus))
    text = plan.model_dump_json() if plan else None
    number, jobs = store.add_sweep(swept, configs, priority, gpus, text)
    return answers.sweep(number, swept, jobs, text)


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


@routes.get("/v1/jobs/{job_id}", responses=NOT_FOUND)
def get_job(job: Found) -> JobDetail:
    """All that is known about a job."""
    return answers.detail(job)


@routes.get("/v1/jobs/{job_id}/metrics", responses=NOT_FOUND)
def get_metrics(job: Found) -> list[dict[str, Metric]]:
    """The metrics of each finished epoch; null where they are not finite."""
    return history(job.directory)


@routes.get(
    "/v1/jobs/{job_id}/logs",
    response_class=PlainTextResponse,
    responses={**NOT_FOUND, 200: {"content": _LOG}},
)
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
    if "text/event-stream" in accept.lower():
        return EventSourceResponse(
            follow(
                _store(request), job.id, last_event_id, request.app.state.is_stopping
            )
        )
    try:
        return file_response(open_below(job.directory, LOG), LOG)
    except OSError:
        return PlainTextResponse("")


@routes.post("/v1/jobs/cancel")
def cancel_all(store: Stored) -> Cancelled:
    """Cancel all jobs that are queued or running."""
    return Cancelled(jobs=store.cancel_all())


@routes.post("/v1/jobs/{job_id}/cancel", responses=NOT_FOUND_OR_NOT_NOW)
def cancel(job: Found, store: Stored) -> JobDetail:
    """Take a job from the queue, or stop its trainer; what it has done stays."""
    if not store.cancel(job.id):
        raise HTTPException(
            HTTPStatus.CONFLICT, f"Job {job.id} has ended: it is {job.state}."
        )
    return answers.detail(store.get(job.id) or job)


@routes.post("/v1/jobs/{job_id}/resume", responses=NOT_FOUND_OR_NOT_NOW)
def resume(job: Found, store: Stored) -> JobDetail:
    """Queue a failed, cancelled or interrupted job again, from its checkpoint."""
    if not store.resume(job.id):
        raise HTTPException(
            HTTPStatus.CONFLICT,
            "Only a job that is failed, cancelled or interrupted can be resumed. "
            f"Job {job.id} is {job.state}.",
        )
    return answers.detail(store.get(job.id) or job)


@routes.get("/v1/jobs/{job_id}/artifacts", responses=NOT_FOUND)
def list_artifacts(job: Found) -> list[Artifact]:
    """The files of the run."""
    files = [Artifact(path=p, size=size) for p, size in files_below(job.directory)]
    return sorted(files, key=lambda file: file.path)


@routes.get(
    "/v1/jobs/{job_id}/artifacts/{path:any}",
    response_class=Response,
    responses={**NOT_FOUND, 200: {"content": _FILE}},
)
def get_artifact(job: Found, path: str) -> Response:
    """A file of the run."""
    try:
        return file_response(open_below(job.directory, path), path)
    except OSError as error:
        raise HTTPException(
            HTTPStatus.NOT_FOUND, f"Job {job.id} has no file {path}."
        ) from error


@routes.delete(
    "/v1/jobs/{job_id}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=NOT_FOUND_OR_NOT_NOW,
)
def delete(request: Request, job: Found, store: Stored) -> None:
    """Forget an ended job and remove its run; the model that it exported stays."""
    if not removal.delete(store, job):
        raise HTTPException(
            HTTPStatus.CONFLICT, f"Job {job.id} is {job.state}. Cancel it first."
        )
    if job.sweep and job.trial and store.sweep_fields(job.sweep) is None:
        request.app.state.queue.searches.forget(job.sweep)
