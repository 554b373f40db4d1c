"""Write files that are either whole or not there."""

import tempfile
from pathlib import Path

from training.errors import UserError


def write_atomically(path: Path, text: str) -> None:
    """Replace a file by a complete new one."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


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
