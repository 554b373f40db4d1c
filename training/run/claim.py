"""At most one process trains in a run's directory, and each run has its own name."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from training.errors import UserError
from training.run.atomic import write_atomically

LOCK = ".lock"
_ID = ".id"

# An environment variable: the directory whose lock the parent process has passed on.
INHERITED = "TRAINING_CLAIM"


@contextlib.contextmanager
def claim(directory: Path) -> Iterator[None]:
    """Hold the directory of a run.

    The operating system ends the claim when the process ends, in whatever way.

    Args:
        directory: The directory of the run, where the process's number is written.

    Raises:
        UserError: If another process holds it.
    """
    with _lock(directory):
        write_atomically(_owner(directory), str(os.getpid()))
        yield


def check_claim(directory: Path) -> None:
    """Prove that the directory that this process has claimed is still there.

    Raises:
        UserError: If somebody has removed it. Another process may have made a new one.
    """
    try:
        is_own = _owner(directory).read_text(encoding="utf-8") == str(os.getpid())
    except FileNotFoundError:
        is_own = False
    if not is_own:
        raise UserError(f"The run's directory {directory} has been removed.")


def is_claimed(directory: Path) -> bool:
    """Return whether a process holds the directory of a run now."""
    if not (directory / LOCK).exists():
        return False
    try:
        with FileLock(directory / LOCK, timeout=0):
            return False
    except Timeout:
        return True


def run_id(directory: Path) -> str:
    """Return the unique name of the run in a directory, made and kept there once."""
    known = known_run_id(directory)
    if known is None:
        known = uuid.uuid4().hex
        write_atomically(directory / _ID, known)
    return known


def known_run_id(directory: Path) -> str | None:
    """Return the unique name of the run in a directory if it has one yet."""
    try:
        return (directory / _ID).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _lock(directory: Path) -> Iterator[None]:
    if os.environ.get(INHERITED) == str(directory):
        yield
        return
    # Wait a second, since `is_claimed` takes the lock for a moment, too.
    lock = FileLock(directory / LOCK, timeout=1)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"Another process is training in {directory}. Wait for its end or stop it."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _owner(directory: Path) -> Path:
    return directory / ".pid"
