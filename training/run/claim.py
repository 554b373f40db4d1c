"""A run's directory: at most one process trains there; no other run has its name."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from training.errors import UserError
from training.run.atomic import write_atomically

LOCK = ".lock"

# Names the directory whose lock a process has been given by the one that started it.
INHERITED = "TRAINING_CLAIM"


@contextlib.contextmanager
def claim(directory: Path) -> Iterator[None]:
    """Holds the directory of a run.

    The operating system ends the claim with the process, however that ends.

    Args:
        directory: The directory of the run; the process's number is kept there.

    Raises:
        UserError: If another process holds it.
    """
    with _lock(directory):
        write_atomically(_owner(directory), str(os.getpid()))
        yield


def check_claim(directory: Path) -> None:
    """Proves that a directory that this process has claimed is still there.

    Raises:
        UserError: If it has been removed, perhaps made anew by another process.
    """
    try:
        is_own = _owner(directory).read_text(encoding="utf-8") == str(os.getpid())
    except FileNotFoundError:
        is_own = False
    if not is_own:
        raise UserError(f"The run's directory {directory} has been removed.")


def is_claimed(directory: Path) -> bool:
    """Whether a process holds the directory of a run now."""
    if not (directory / LOCK).exists():
        return False
    try:
        with FileLock(directory / LOCK, timeout=0):
            return False
    except Timeout:
        return True


def run_id(directory: Path) -> str:
    """A name for the run in a directory that no other run has, kept there."""
    path = directory / ".id"
    if not path.exists():
        write_atomically(path, uuid.uuid4().hex)
    return path.read_text(encoding="utf-8")


@contextlib.contextmanager
def _lock(directory: Path) -> Iterator[None]:
    if os.environ.get(INHERITED) == str(directory):
        yield
        return
    # Not at once: `is_claimed` takes the lock for a moment, too.
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
