"""Files that are either whole or not there."""

import tempfile
from pathlib import Path

from training.errors import UserError


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file by a complete new one."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def check_writable(directory: Path, option: str) -> None:
    """Makes a directory and proves that files can be written there.

    Raises:
        UserError: If not.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        raise UserError(
            f"`{option}` must be a directory that can be written to. "
            f"Received: {directory}: {error.strerror}."
        ) from error
