"""At most one process trains in a run's directory."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from training.errors import UserError
from training.files import write_atomically


@contextlib.contextmanager
def claim(directory: Path) -> Iterator[None]:
    """Holds the directory of a run.

    The operating system ends the claim with the process, however that ends.

    Args:
        directory: The directory of the run; the process's number is kept there.

    Raises:
        UserError: If another process holds it.
    """
    # Not at once: `holder` takes the lock for a moment, too.
    lock = FileLock(directory / ".lock", timeout=1)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"Another process ({_number(directory)}) is training in {directory}. "
            "Wait for its end or stop it."
        ) from error
    try:
        write_atomically(directory / ".pid", str(os.getpid()))
        yield
    finally:
        lock.release()


def check_claim(directory: Path) -> None:
    """Proves that a directory that this process has claimed is still there.

    Raises:
        UserError: If it has been removed, perhaps made anew by another process.
    """
    try:
        claimed = _number(directory) == os.getpid()
    except FileNotFoundError:
        claimed = False
    if not claimed:
        raise UserError(f"The run's directory {directory} has been removed.")


def holder(directory: Path) -> int | None:
    """The number of the process that trains in the directory now, if there is one."""
    if not (directory / ".lock").exists():
        return None
    try:
        with FileLock(directory / ".lock", timeout=0):
            return None
    except Timeout:
        return _number(directory)


def _number(directory: Path) -> int:
    return int((directory / ".pid").read_text(encoding="utf-8"))
