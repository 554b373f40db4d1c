"""The body of `POST /v1/jobs`: a TrainConfig, with lists where values are swept."""

import itertools
import math
import re
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from service.jobs.paths import OutsideError, Roots
from training.config import LONGEST_NAME, TrainConfig

_MOST_JOBS = 1000


def _schema() -> dict[str, Any]:
    schema = TrainConfig.model_json_schema()
    for name, field in schema["properties"].items():
        values = {"type": "array", "items": field, "minItems": 1}
        schema["properties"][name] = {"anyOf": [field, values]}
    return {"required": True, "content": {"application/json": {"schema": schema}}}


BODY_SCHEMA = _schema()


async def values_of(request: Request) -> dict[str, Any]:
    """Reads the body as a JSON object.

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
        raise _refused("", f"The body must be JSON: {error}.") from error
    if not isinstance(values, dict):
        raise _refused("", "The body must be an object of train.py's options.")
    return values


def configs_of(
    values: dict[str, Any], roots: Roots
) -> tuple[list[str], list[TrainConfig]]:
    """The fields that have a list of values, and a config for each combination.

    Each config of a sweep exports under a name of its own.
    """
    swept = [name for name, value in values.items() if isinstance(value, list)]
    for name in swept:
        if not values[name]:
            raise _refused(name, "A list of values must not be empty.")
    number = math.prod(len(values[name]) for name in swept)
    if number > _MOST_JOBS:
        raise _refused(
            "",
            f"A sweep must have at most {_MOST_JOBS} jobs. "
            f"Received: {number} combinations.",
        )
    combinations = itertools.product(*(values[name] for name in swept))
    configs = [
        _config({**values, **dict(zip(swept, combination, strict=True))}, roots)
        for combination in combinations
    ]
    return swept, _named_apart(configs, swept) if swept else configs


def _config(values: dict[str, Any], roots: Roots) -> TrainConfig:
    try:
        config = TrainConfig.model_validate(values)
    except ValidationError as error:
        complaints = error.errors(include_url=False, include_context=False)
        raise RequestValidationError(
            [{**each, "loc": ("body", *each["loc"])} for each in complaints]
        ) from error
    try:
        return roots.confine(config)
    except OutsideError as error:
        raise _refused(error.field, str(error)) from error


def _named_apart(configs: list[TrainConfig], swept: list[str]) -> list[TrainConfig]:
    """Names each job of a sweep after its values, or by its number where that fails."""
    names = []
    for config in configs:
        values = [f"{name}-{getattr(config, name)}" for name in swept if name != "name"]
        name = "-".join([config.export_name, *values])
        names.append(re.sub(r"[^A-Za-z0-9._-]+", "-", name))
    if len(set(names)) < len(names) or max(map(len, names)) > LONGEST_NAME:
        own = [config.export_name[: LONGEST_NAME - 5] for config in configs]
        names = [f"{name}-{number}" for number, name in enumerate(own, start=1)]
    return [
        config.model_copy(update={"name": name})
        for config, name in zip(configs, names, strict=True)
    ]


def _refused(field: str, message: str) -> RequestValidationError:
    location = ("body", field) if field else ("body",)
    return RequestValidationError(
        [{"type": "value_error", "loc": location, "msg": message}]
    )
