"""The body of `POST /v1/jobs`: a TrainConfig, with lists where values are swept."""

import itertools
import re
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from service.paths import OutsideError, Roots
from training.config import TrainConfig

_MOST_JOBS = 1000


def _schema() -> dict[str, Any]:
    schema = TrainConfig.model_json_schema()
    for name, field in schema["properties"].items():
        values = {"type": "array", "items": field, "minItems": 1}
        schema["properties"][name] = {"anyOf": [field, values]}
    return {"content": {"application/json": {"schema": schema}}}


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
    combinations = list(itertools.product(*(values[name] for name in swept)))
    if len(combinations) > _MOST_JOBS:
        raise _refused(
            "",
            f"A sweep must have at most {_MOST_JOBS} jobs. "
            f"Received: {len(combinations)} combinations.",
        )
    configs = []
    for combination in combinations:
        chosen = dict(zip(swept, combination, strict=True))
        config = _config({**values, **chosen}, roots)
        if swept:
            name = _name(config, [field for field in swept if field != "name"])
            config = config.model_copy(update={"name": name})
        configs.append(config)
    return swept, configs


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


def _name(config: TrainConfig, swept: list[str]) -> str:
    parts = [f"{field}-{getattr(config, field)}" for field in swept]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join([config.export_name, *parts]))


def _refused(field: str, message: str) -> RequestValidationError:
    location = ("body", field) if field else ("body",)
    return RequestValidationError(
        [{"type": "value_error", "loc": location, "msg": message}]
    )
