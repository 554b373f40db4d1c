"""Where the jobs of a service may read and write."""

import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from training.config import TrainConfig
from training.options.values import FOLDER, file_of, is_code, is_elsewhere

_LONGEST_PATH = 4095  # bytes, Linux's PATH_MAX
_NAMES_A_FILE = re.compile(r"[/\\]|^[.~]|^\w+:")  # also as a URL


class OutsideError(Exception):
    """A path that leads out of the roots.

    Args:
        field: The field of the config.
        message: What is wrong, in one line.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class Roots:
    """The directories that the paths in configs are confined to.

    Args:
        runs: Where runs are kept: the field `run_dir`.
        exports: Where models are exported to: the field `export_dir`.
        data: Where all other paths must lie: `data_dir`, `archives`, `folder:PATH` as
            `dataset`, and whatever option comes later.
        downloads: Whether trainers may fetch datasets from other hosts.
        models: Where the files of models must lie, whose code trainers run.
    """

    runs: Path
    exports: Path
    data: tuple[Path, ...]
    downloads: bool = False
    models: tuple[Path, ...] = ()

    def confine(self, config: TrainConfig) -> TrainConfig:
        """Return a config with this service's directories for runs and exports.

        Raises:
            OutsideError: If the config names a path that is not allowed.
        """
        own = {"run_dir": self.runs, "export_dir": self.exports}
        # A directory below them is refused, too: no run may lie in another run, and no
        # model in another model.
        for field in own.keys() & config.model_fields_set:
            if getattr(config, field) != own[field]:
                raise OutsideError(
                    field, f"`{field}` must be {own[field]}, or left out."
                )
        for field, path in paths_in(config):
            if field not in own:
                _check(field, path, self.data)
        self._check_model(config.model)
        if self.downloads:
            return config.model_copy(update=own)
        asked = "download" in config.model_fields_set and config.download
        if asked or is_elsewhere(config.dataset):
            raise OutsideError(
                "download" if asked else "dataset",
                "This service fetches no datasets from other hosts. "
                "Its operator can allow it with --allow-downloads.",
            )
        return config.model_copy(update={**own, "download": False})

    def _check_model(self, model: str) -> None:
        file = file_of(model)
        if file is not None and self.models:
            _check("model", file, self.models)
        elif is_code(model):
            raise OutsideError(
                "model",
                "`model` must be cnn, mlp or applications:NAME, or FILE.py:FUNCTION "
                "where the service's operator allows files with --model-root. "
                f"Received: {model!r}.",
            )


def paths_in(config: TrainConfig) -> Iterator[tuple[str, Path]]:
    """Yield each path that a config names, with its field.

    It goes by the values, so that no option can be forgotten. A text that could name a
    file is taken for a path, but for the name of a dataset and a regular expression.
    Those of a model are not here: they are code.
    """
    for field, value in config:
        if field in ("model", "freeze"):  # code; a regular expression
            continue
        if field == "dataset":
            if value.startswith(FOLDER):
                yield field, Path(value.removeprefix(FOLDER))
            continue
        for part in _parts(value):
            if isinstance(part, Path):
                yield field, part
            elif isinstance(part, str) and _NAMES_A_FILE.search(part):
                yield field, Path(part)


def _parts(value: object) -> Iterator[object]:
    """Yield a value, or the values that it holds, however deep."""
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, Mapping):
        yield from _parts([*value.keys(), *value.values()])
    elif isinstance(value, Collection) and not isinstance(value, str | bytes):
        for part in value:
            yield from _parts(part)
    else:
        yield value


def _check(field: str, path: Path, roots: tuple[Path, ...]) -> None:
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise OutsideError(
            field, f"`{field}` must be a path of at most {_LONGEST_PATH} bytes."
        )
    if not any(_is_below(path, root) for root in roots):
        places = " or ".join(str(root) for root in roots) or "nowhere"
        raise OutsideError(
            field, f"`{field}` must lie in {places}. Received: {str(path)!r}."
        )


def _is_below(path: Path, root: Path) -> bool:
    """Return whether a path lies below a root, after following links."""
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):  # a loop of links, or no path at all
        return False
