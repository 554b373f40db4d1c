"""What the main process and the others tell each other."""

import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from service.options import ServiceOptions
from service.serving.config import ServingConfig

_STATES = "states"
# A version shares its byte with the one that comes so much later.
_MOST_VERSIONS = 2**20


@dataclass(frozen=True)
class Orders:
    """What a process is told at its start.

    Attributes:
        options: Those of the service, with the ports that are used.
        serving: How models are served.
        directory: What the processes share: the metrics and the states.
    """

    options: ServiceOptions
    serving: ServingConfig
    directory: Path


@dataclass(frozen=True)
class Told:
    """A version, as the main process tells the others of it.

    Attributes:
        key: What no other version has, not even a later one of the same number.
        name: The model's name.
        number: The version's number.
        directory: The version's directory.
        is_wanted: Whether to have it loaded.
        error: Why it cannot be served.
    """

    key: int
    name: str
    number: int
    directory: Path
    is_wanted: bool
    error: Exception | None


@dataclass(frozen=True)
class Table:
    """All versions, and the labels of each model."""

    versions: tuple[Told, ...] = ()
    labels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What a process tells of itself, or of the version with a key."""

    what: Literal["running", "answering", "loaded", "failed", "closed"]
    key: int = -1
    error: Exception | None = None


class States:
    """The states of versions, a byte each, which all processes see change at once.

    Args:
        directory: What the processes share.
        make: Whether to make them, and so be the one that changes them.
    """

    def __init__(self, directory: Path, make: bool = False) -> None:
        path = directory / _STATES
        if make:
            path.write_bytes(b"\0")
            with path.open("r+b") as file:
                file.truncate(_MOST_VERSIONS)
        access = mmap.ACCESS_WRITE if make else mmap.ACCESS_READ
        with path.open("r+b" if make else "rb") as file:
            self._bytes = mmap.mmap(file.fileno(), _MOST_VERSIONS, access=access)

    def __getitem__(self, key: int) -> int:
        """Return the state of a version by its key."""
        return self._bytes[key % _MOST_VERSIONS]

    def __setitem__(self, key: int, state: int) -> None:
        """Change the state of a version."""
        self._bytes[key % _MOST_VERSIONS] = state
