"""One version of a model: its files, its state, and its users."""

import enum
import logging
import threading
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from service.serving.batching import BatchingParameters
from service.serving.config import ServingConfig
from service.serving.errors import as_op_error, invalid, of_runtime
from service.serving.saved_model import SavedModel

_logger = logging.getLogger(__name__)


class State(enum.Enum):
    """The states of TensorFlow Serving, with its numbers."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True)
class Status:
    """The state of a version, as clients are told it."""

    number: int
    state: State
    error: tf.errors.OpError | None


class Version:
    """One version, from its start to its end. It does not start again.

    Args:
        name: The model's name.
        number: The version's number.
        directory: The version's directory.
    """

    def __init__(self, name: str, number: int, directory: Path) -> None:
        self.name = name
        self.number = number
        self.directory = directory
        self.state = State.START
        self.error: tf.errors.OpError | None = None
        self.files: object = None
        self._model: SavedModel | None = None
        self._users = 0
        self._lock = threading.Lock()

    @property
    def status(self) -> Status:
        """The state, and why loading failed if it did."""
        return Status(self.number, self.state, self.error)

    @property
    def has_failed(self) -> bool:
        """Whether it could not be loaded."""
        return self.error is not None

    def load(
        self,
        base: Path,
        batching: BatchingParameters | None = None,
        timeout: float = ServingConfig.timeout,
    ) -> None:
        """Load the version, which makes it available or ends it with an error.

        Args:
            base: The directory that all its files must lie under.
            batching: How to batch requests, if at all.
            timeout: Seconds that a request usually may take.
        """
        self.state = State.LOADING
        self.files = fingerprint(self.directory)
        try:
            check_files(self.directory, base)
            self._model = SavedModel(self.directory, batching, timeout)
            self._wait_for_others()
        except Exception as error:
            # A damaged or hostile file may make TensorFlow raise anything.
            if not isinstance(error, tf.errors.OpError | OSError | ValueError):
                _logger.exception("%s could not be loaded.", self.directory)
            self.error = of_runtime(as_op_error(error))
            self.state = State.END
            self.close_if_unused()
        else:
            self.state = State.AVAILABLE

    def acquire(self) -> SavedModel | None:
        """Return the model, which stays loaded until `release`, if it is available."""
        with self._lock:
            if self.state is not State.AVAILABLE:
                return None
            self._users += 1
            return self._model

    def release(self) -> None:
        """Give back the model; the last user of an unloaded version closes it."""
        with self._lock:
            self._users -= 1
        self.close_if_unused()

    def unload(self) -> None:
        """Take no further requests, and end when those under way have ended."""
        with self._lock:
            if self.state is not State.AVAILABLE:
                return
            self.state = State.UNLOADING
        self.close_if_unused()

    def close_if_unused(self) -> bool:
        """Close the model if nobody may use it any more; return whether that is done.

        The version ends then.
        """
        with self._lock:
            if self.state not in (State.UNLOADING, State.END) or self._users:
                return False
            model, self._model = self._model, None
            self.state = State.END
        if model is None:
            return False
        model.close()
        return True

    def _wait_for_others(self) -> None:
        """Wait until other processes have it, where there are some.

        Raises:
            tf.errors.OpError: If one of them cannot load it.
        """


def fingerprint(directory: Path) -> object:
    """Return a value that differs once a file in the directory has changed."""
    try:
        return sorted(
            (str(path), status.st_size, status.st_mtime_ns)
            for path in directory.rglob("*")
            if (status := path.stat())
        )
    except OSError as error:
        return str(error)


def check_files(directory: Path, base: Path) -> None:
    """Check that a version has only files and directories, all under the base.

    Args:
        directory: One version's directory.
        base: The directory that all its files must lie under.

    Raises:
        tf.errors.OpError: If a link leads out of the base, or there is a pipe, say.
    """
    root = base.resolve()
    for path in (directory, *directory.rglob("*")):
        if path.exists() and not (path.is_dir() or path.is_file()):
            raise invalid(f"{path} is neither a file nor a directory.")
        if not path.resolve().is_relative_to(root):
            raise tf.errors.PermissionDeniedError(
                None, None, f"{path} leads out of the model base path."
            )
