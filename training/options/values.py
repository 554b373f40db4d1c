"""What the values of options may be: paths, names of models and datasets, JSON."""

import json
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

REPOSITORY = Path(__file__).resolve().parent.parent.parent
FOLDER = "folder:"  # before the path of a dataset
APPLICATIONS = "applications:"  # before the name of a model of keras.applications
LONGEST_NAME = 100  # of a run and its exported model
_DEEPEST = 6  # lists and objects in the value of a model's argument

# Before a name of TFDS, but not before a version.
_NAMESPACE = re.compile(r"[\w-]+:(?!(\d+|\*)(\.(\d+|\*)){2}$)")
# Neither control characters, nor line breaks of any kind, nor marks that turn the
# direction of writing: a name stands in messages.
ONE_LINE = r"^[^\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]*$"

# NAME of the repository, applications:NAME, FILE.py:FUNCTION, PACKAGE.MODULE:FUNCTION
_MODEL = re.compile(r"cnn|mlp|(?P<file>.+\.py):\w+|[^\W\d][\w.]*:\w+")
FORMAT = "(savedmodel|onnx|litert|openvino)"

# Kept absolute, so that a run can be resumed from any working directory.
Location = Annotated[Path, AfterValidator(lambda path: _absolute(path))]
Dataset = Annotated[str, AfterValidator(lambda name: _absolute_folder(name))]
Model = Annotated[str, AfterValidator(lambda name: _absolute_model(name))]
Pattern = Annotated[str, AfterValidator(lambda text: _regular_expression(text))]
Arguments = Annotated[
    dict[str, Any], BeforeValidator(lambda given: _by_name(given)), NoDecode
]


def _absolute_folder(dataset: str) -> str:
    if not dataset.startswith(FOLDER):
        return dataset
    return f"{FOLDER}{_absolute(Path(dataset.removeprefix(FOLDER)))}"


def _absolute_model(model: str) -> str:
    if not _MODEL.fullmatch(model):
        raise ValueError(
            "it must be cnn, mlp, applications:NAME, FILE.py:FUNCTION or "
            "PACKAGE.MODULE:FUNCTION"
        )
    file = file_of(model)
    return model if file is None else f"{_absolute(file)}{model[len(str(file)) :]}"


def _regular_expression(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"it must be a regular expression: {error}") from error
    return text


def is_code(model: str) -> bool:
    """Return whether a model is a function of a file or a module, which is run."""
    return ":" in model and not model.startswith(APPLICATIONS)


def file_of(model: str) -> Path | None:
    """Return the file that FILE.py:FUNCTION names; `None` for other models."""
    match = _MODEL.fullmatch(model)
    return Path(match["file"]) if match and match["file"] else None


def _by_name(given: Any) -> Any:
    """Return options by name; as text, each is KEY=VALUE, and its value may be JSON."""
    if not isinstance(given, Mapping):
        texts = given.split() if isinstance(given, str) else given
        if not isinstance(texts, Collection) or not all(
            isinstance(text, str) and text.find("=") > 0 for text in texts
        ):
            raise ValueError("it must be KEY=VALUE")
        pairs = (text.partition("=") for text in texts)
        given = {key: _plain(value) for key, _, value in pairs}
    _check_is_json(list(given.values()), _DEEPEST)
    return given


def _plain(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _check_is_json(value: Any, deepest: int) -> None:
    if isinstance(value, list | dict) and deepest:
        parts = value.values() if isinstance(value, dict) else value
        for part in parts:
            _check_is_json(part, deepest - 1)
    elif isinstance(value, list | dict):
        raise ValueError(f"it must be at most {_DEEPEST - 1} lists deep")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("its numbers must be finite")
    elif not isinstance(value, str | int | float | None):
        raise ValueError("its values must be text, numbers, true, false, null or lists")


def is_elsewhere(dataset: str) -> bool:
    """Return whether a name means a dataset of another host: huggingface:USER/NAME.

    After the name of one of TFDS's own a colon precedes a version.
    """
    return not dataset.startswith(FOLDER) and bool(_NAMESPACE.match(dataset))


def _absolute(path: Path) -> Path:
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(f"{path}: there is no such user.") from error
