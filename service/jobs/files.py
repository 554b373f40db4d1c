"""The files of a run, as they are given out."""

import contextlib
import mimetypes
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fastapi import Response
from fastapi.responses import StreamingResponse

_BYTES_AT_A_TIME = 2**20
# Opening a pipe would wait for someone to write.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def files_below(root: Path) -> Iterator[tuple[str, int]]:
    """Yield the paths of a run's files and their sizes in bytes.

    Neither hidden files nor links, nor files whose names are no text.
    """
    # `rglob` fails if a run removes a directory meanwhile.
    for directory, _, names in os.walk(root):
        for path in (Path(directory, name) for name in names):
            below = path.relative_to(root).as_posix()
            if _is_hidden(below) or not _is_a_name(below):
                continue
            with contextlib.suppress(OSError):
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    yield below, status.st_size


def open_below(root: Path, path: str) -> BinaryIO:
    """Open a file of a run by its path below the run's directory.

    Raises:
        OSError: If there is none. A hidden file counts as none, and so does one that a
            link leads to, wherever it lies.
    """
    *parents, name = path.split("/")
    if _is_hidden(path) or not _is_a_name(path):
        raise FileNotFoundError(path)
    with contextlib.ExitStack() as stack:
        # From directory to directory, so that nobody can put a link in between.
        place = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, place)
        for parent in parents:
            place = os.open(parent, _FLAGS | os.O_DIRECTORY, dir_fd=place)
            stack.callback(os.close, place)
        file = os.open(name, _FLAGS, dir_fd=place)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise FileNotFoundError(path)
    return os.fdopen(file, "rb")


def file_response(file: BinaryIO, name: str) -> Response:
    """Return the answer with a file as it is now, even if it grows meanwhile."""
    size = os.fstat(file.fileno()).st_size

    def parts() -> Iterator[bytes]:
        with file:
            left = size
            while left and (part := file.read(min(left, _BYTES_AT_A_TIME))):
                left -= len(part)
                yield part

    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    headers = {"Content-Length": str(size)}
    return StreamingResponse(parts(), media_type=media_type, headers=headers)


def _is_hidden(path: str) -> bool:
    """Return whether a name begins with a dot, as `..` does, or is none."""
    return any(not part or part.startswith(".") for part in path.split("/"))


def _is_a_name(path: str) -> bool:
    """Return whether a text can name a file in an answer and in the file system."""
    try:
        return "\0" not in path and bool(path.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
