"""The body of `POST /v1/jobs`: train.py's options as one JSON object."""

from http import HTTPStatus
from typing import Any

import orjson
from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter
from starlette.requests import ClientDisconnect

from service.jobs.plan import TRIALS, Range, Trials, takes_ranges
from service.jobs.submission import SubmissionError, refusal
from training.config import TrainConfig


def _schema() -> dict[str, Any]:
    schema = TrainConfig.model_json_schema()
    numbers = Range.model_json_schema()
    for name, field in schema["properties"].items():
        values = {"type": "array", "items": field, "minItems": 1}
        ranges = [numbers] if takes_ranges(name) else []
        schema["properties"][name] = {"anyOf": [field, values, *ranges]}
    schema["properties"][TRIALS] = TypeAdapter(Trials).json_schema()
    return {"required": True, "content": {"application/json": {"schema": schema}}}


BODY_SCHEMA = _schema()


async def values_of(request: Request) -> dict[str, Any]:
    """Return the body, which must be a JSON object.

    Another media type is refused: a browser lets a foreign page send those unasked.
    """
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type != "application/json":
        raise HTTPException(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "The body must have the Content-Type application/json. "
            f"Received: {media_type or 'none'}.",
        )
    try:
        # Strict: no NaN, no infinity, no half of a surrogate pair.
        values = orjson.loads(await request.body())
    except ClientDisconnect as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "The client has gone.") from error
    except orjson.JSONDecodeError as error:
        raise as_http(refusal(f"The body must be JSON: {error}.")) from error
    if not isinstance(values, dict):
        raise as_http(refusal("The body must be an object of train.py's options."))
    return values


def as_http(error: SubmissionError, part: str = "body") -> RequestValidationError:
    """Return the error that FastAPI answers with status 422 and all complaints.

    Args:
        error: What is wrong with options.
        part: The part of the request that has them.
    """
    return RequestValidationError(
        [{**each, "loc": (part, *each["loc"])} for each in error.complaints]
    )
