"""The models that are served, with their directories and versions."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.serving.text_proto import read_text_proto
from training.errors import UserError

Policy = Callable[[Collection[int]], set[int]]
"""Chooses the versions to serve from those that exist."""

_LARGEST_VERSION = 2**63 - 1


def latest(number: int = 1) -> Policy:
    """Return a policy that chooses the `number` highest versions."""
    return lambda versions: set(sorted(versions)[-number:])


def every(versions: Collection[int]) -> set[int]:
    """Return all versions."""
    return set(versions)


def specific(*numbers: int) -> Policy:
    """Return a policy that chooses these versions and no others."""
    return lambda versions: set(numbers) & set(versions)


_LATEST = latest()


@dataclass(frozen=True)
class ModelConfig:
    """One model.

    Attributes:
        name: The name that requests use.
        directory: The directory of its versions. Their directories are numbers.
        policy: Chooses the versions that are served.
        labels: Versions by label.
    """

    name: str
    directory: Path
    policy: Policy = _LATEST
    labels: Mapping[str, int] = field(default_factory=dict)


def discover(base: Path) -> dict[str, ModelConfig]:
    """Return a model for each sub-directory with a version, to serve its latest one.

    A hidden directory is not a model, nor is one whose name cannot be printed.

    Raises:
        OSError: If the directory cannot be read.
    """
    return {
        path.name: ModelConfig(path.name, path)
        for path in base.iterdir()
        if not path.name.startswith(".")
        and path.name.isprintable()
        and _has_version(path)
    }


def versions(directory: Path) -> dict[int, Path]:
    """Return the versions in a model's directory; other names are ignored.

    Raises:
        OSError: If the directory cannot be read.
    """
    return {
        number: path
        for path in sorted(directory.iterdir())
        if path.name.isascii()
        and path.name.isdigit()
        and len(path.name) <= 20
        and (number := int(path.name)) <= _LARGEST_VERSION
        and path.is_dir()
    }


def _has_version(directory: Path) -> bool:
    try:
        return bool(versions(directory))
    except OSError:
        return False


def read_config_file(path: Path, base: Path) -> dict[str, ModelConfig]:
    """Read TensorFlow Serving's model config file, a `ModelServerConfig` as text.

    Args:
        path: The file.
        base: The directory that all models must lie under. Relative base paths start
            there.

    Raises:
        UserError: If the file cannot be read, or names something that is not served.
    """
    try:
        from tensorflow_serving.config import model_server_config_pb2
    except ImportError as error:
        raise UserError(
            "A model config file needs tensorflow-serving-api. "
            "Run: pip install --group serve."
        ) from error
    config = model_server_config_pb2.ModelServerConfig()
    read_text_proto(path, config, "--model-config-file")
    if config.WhichOneof("config") == "custom_model_config":
        raise UserError(f"`custom_model_config` is not supported. Received: {path}.")
    models: dict[str, ModelConfig] = {}
    for entry in config.model_config_list.config:
        if entry.name in models:
            raise UserError(f"A model has one entry. Received: {entry.name!r} twice.")
        models[entry.name] = _model(entry, base)
    return models


def _model(entry: Any, base: Path) -> ModelConfig:
    directory = base / entry.base_path
    if not entry.name or not entry.base_path:
        raise UserError(
            "Every model needs a `name` and a `base_path`. "
            f"Received: name {entry.name!r}, base_path {entry.base_path!r}."
        )
    if entry.model_platform not in ("", "tensorflow"):
        raise UserError(
            "`model_platform` must be 'tensorflow'. "
            f"Received: {entry.model_platform!r} for {entry.name}."
        )
    if not directory.resolve().is_relative_to(base.resolve()):
        raise UserError(
            f"`base_path` must lie under {base}. "
            f"Received: {entry.base_path!r} for {entry.name}."
        )
    return ModelConfig(
        entry.name, directory, _policy(entry), dict(entry.version_labels)
    )


def _policy(entry: Any) -> Policy:
    policy = entry.model_version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            return every
        case "specific":
            return specific(*policy.specific.versions)
        case _:
            return latest(max(1, policy.latest.num_versions))
