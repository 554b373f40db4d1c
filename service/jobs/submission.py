"""From train.py's options to configs, with lists where values are swept."""

import contextlib
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from service.jobs.paths import OutsideError, Roots
from service.log import log_refusal
from training.cli.settings import nearest
from training.config import TrainConfig
from training.data.names import complaint_about_name
from training.errors import UserError, printable
from training.options.values import LONGEST_NAME

_MOST_JOBS = 1000
_OF_THE_QUERY = ("priority", "gpus")

Complaint = Mapping[str, Any]  # `type`, `loc`, `msg`, as pydantic's errors have them


class SubmissionError(UserError):
    """Options that no job can be made of.

    Args:
        complaints: What is wrong: `loc` is the path of the option, empty where several
            options are meant; `msg` is one line.
    """

    def __init__(self, complaints: Sequence[Complaint]) -> None:
        super().__init__("; ".join(each["msg"] for each in complaints))
        self.complaints = [{**c, "msg": printable(c["msg"])} for c in complaints]


def refusal(message: str, *fields: str) -> SubmissionError:
    """Return the error of a single complaint, about an option or about all."""
    return SubmissionError([{"type": "value_error", "loc": fields, "msg": message}])


@contextlib.contextmanager
def logging_refusals() -> Iterator[None]:
    """Let a refusal of options be a line of the log."""
    try:
        yield
    except SubmissionError as error:
        log_refusal(f"A job is refused: {_named(error)}")
        raise


@logging_refusals()
def configs_of(
    values: dict[str, Any], roots: Roots
) -> tuple[list[str], list[TrainConfig]]:
    """Return the options that have a list of values, and a config per combination.

    Each config of a sweep exports under a name of its own.

    Args:
        values: Options of train.py by the names of `TrainConfig`'s fields.
        roots: The directories that the paths in them are confined to.

    Raises:
        SubmissionError: If an option or its value is not allowed.
    """
    swept, configs = combinations_of(values, roots, "A sweep must have at most {} jobs")
    return swept, _named_apart(configs, swept) if swept else configs


def combinations_of(
    values: Mapping[str, Any], roots: Roots, limit: str
) -> tuple[list[str], list[TrainConfig]]:
    """Return the options that have a list of values, and a config per combination.

    Args:
        values: Options of train.py by the names of `TrainConfig`'s fields.
        roots: The directories that the paths in them are confined to.
        limit: What is said where there are too many; `{}` stands for how many may be.

    Raises:
        SubmissionError: If an option or its value is not allowed.
    """
    swept = [name for name, value in values.items() if isinstance(value, list)]
    for name in swept:
        if not values[name]:
            raise refusal("A list of values must not be empty.", name)
    number = math.prod(len(values[name]) for name in swept)
    if number > _MOST_JOBS:
        said = limit.format(_MOST_JOBS)
        raise refusal(f"{said}. Received: {number} combinations.")
    combinations = itertools.product(*(values[name] for name in swept))
    configs = [
        _config({**values, **dict(zip(swept, combination, strict=True))}, roots)
        for combination in combinations
    ]
    return swept, configs


def _named(error: SubmissionError) -> str:
    """Return what is wrong with which option, in one line."""
    return "; ".join(
        ": ".join((*map(str, each["loc"]), each["msg"])) for each in error.complaints
    )


def _config(values: dict[str, Any], roots: Roots) -> TrainConfig:
    try:
        config = roots.confine(TrainConfig.model_validate(values))
    except ValidationError as error:
        complaints = error.errors(include_url=False, include_context=False)
        raise SubmissionError(list(map(_in_words, complaints))) from error
    except OutsideError as error:
        raise refusal(str(error), error.field) from error
    if unknown := complaint_about_name(config):
        raise refusal(unknown, "dataset")
    return config


def _in_words(complaint: Complaint) -> Complaint:
    """Return a complaint of pydantic's, with a hint about a name that is no option."""
    if complaint["type"] != "extra_forbidden":
        return complaint
    name = str(complaint["loc"][-1])
    hint = (
        f" Give it in the query: POST /v1/jobs?{name}=N."
        if name in _OF_THE_QUERY
        else nearest(name, TrainConfig.model_fields, otherwise="")
    )
    said = f"`{name[:LONGEST_NAME]}` is not an option of train.py.{hint}"
    return {**complaint, "msg": said}


def _named_apart(configs: list[TrainConfig], swept: list[str]) -> list[TrainConfig]:
    """Name each job of a sweep after its values, or by its number where that fails."""
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
