"""The sweeps and searches over HTTP."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request

from service.jobs import answers, removal
from service.jobs.answers import Cancelled, Sweep
from service.jobs.routes import (
    NOT_FOUND,
    NOT_FOUND_OR_NOT_NOW,
    REFUSED,
    Number,
    Stored,
)

routes = APIRouter(tags=["sweeps"], responses=REFUSED)


def _fields(sweep_id: Number, store: Stored) -> list[str]:
    fields = store.sweep_fields(sweep_id)
    if fields is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"There is no sweep {sweep_id}.")
    return fields


Fields = Annotated[list[str], Depends(_fields)]


@routes.get("/v1/sweeps/{sweep_id}", responses=NOT_FOUND)
def get_sweep(sweep_id: Number, fields: Fields, store: Stored) -> Sweep:
    """The jobs of a sweep or of a search side by side."""
    jobs = store.of_sweep(sweep_id)
    return answers.sweep(sweep_id, fields, jobs, store.plan(sweep_id))


@routes.post(
    "/v1/sweeps/{sweep_id}/cancel",
    responses=NOT_FOUND,
    dependencies=[Depends(_fields)],
)
def cancel_sweep(sweep_id: Number, store: Stored) -> Cancelled:
    """Cancel the jobs of a sweep that are queued or running."""
    return Cancelled(jobs=store.cancel_all(sweep_id))


@routes.delete(
    "/v1/sweeps/{sweep_id}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=NOT_FOUND_OR_NOT_NOW,
    dependencies=[Depends(_fields)],
)
def delete_sweep(request: Request, sweep_id: Number, store: Stored) -> None:
    """Forget an ended sweep and remove the runs of its jobs; exported models stay."""
    is_search = store.plan(sweep_id) is not None
    if going_on := removal.delete_sweep(store, sweep_id):
        job = going_on[0]
        raise HTTPException(
            HTTPStatus.CONFLICT,
            f"Job {job.id} of sweep {sweep_id} is {job.state}. Cancel the sweep first.",
        )
    if is_search:
        request.app.state.queue.searches.forget(sweep_id)
