"""Write files that are either whole or not there, also after a power cut.

A file system may keep a new name and lose what stands in the file. So a file is written
through to the disk before it gets its name, and the name after that.
"""

import errno
import os
import tempfile
from pathlib import Path

from training.errors import UserError


def write_atomically(path: Path, text: str) -> None:
    """Replace a file by a complete new one."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    sync(new)
    new.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Write a file, or the names in a directory, through to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot do it for directories, and need not.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def sync_tree(directory: Path) -> None:
    """Write a directory and all that is in it through to the disk."""
    for path in directory.rglob("*"):
        sync(path)
    sync(directory)


def check_writable(directory: Path, option: str) -> None:
    """Make a directory and prove that files can be written there.

    Args:
        directory: It may exist.
        option: The option that named it, for the error.

    Raises:
        UserError: If it cannot be made or written to.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        raise UserError(
            f"`{option}` must be a directory that can be written to. "
            f"Received: {directory}: {error.strerror}."
        ) from error
