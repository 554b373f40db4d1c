"""The files of a run, as they are given out."""

import contextlib
import mimetypes
import os
from collections.abc import Iterator
from pathlib import Path, PurePath

from fastapi import Response
from fastapi.responses import StreamingResponse

_BYTES_AT_A_TIME = 2**20


def files_below(root: Path) -> Iterator[tuple[Path, int]]:
    """Yield the files of a run and their sizes in bytes, without the hidden ones."""
    # `rglob` fails if a run removes a directory meanwhile.
    for directory, _, names in os.walk(root):
        for path in (Path(directory, name) for name in names):
            with contextlib.suppress(OSError):
                if path.is_file() and not _is_hidden(path.relative_to(root)):
                    yield path, path.stat().st_size


def file_below(root: Path, path: str) -> Path:
    """Return a file of a run by its path below the run's directory.

    Raises:
        FileNotFoundError: If there is none. A hidden file counts as none, and so does
            one outside of the directory that a link leads to.
    """
    root = root.resolve()
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # no such file
        file = (root / path).resolve(strict=True)
        # Opening a pipe would wait for someone to write.
        if file.is_file() and not _is_hidden(file.relative_to(root)):
            return file
    raise FileNotFoundError(path)


def file_response(path: Path) -> Response:
    """Return the answer with a file as it is now, even if it grows meanwhile.

    Raises:
        OSError: If the file cannot be read.
    """
    file = path.open("rb")
    size = os.fstat(file.fileno()).st_size

    def parts() -> Iterator[bytes]:
        with file:
            left = size
            while left and (part := file.read(min(left, _BYTES_AT_A_TIME))):
                left -= len(part)
                yield part

    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    headers = {"Content-Length": str(size)}
    return StreamingResponse(parts(), media_type=media_type, headers=headers)


def _is_hidden(path: PurePath) -> bool:
    return any(part.startswith(".") for part in path.parts)
