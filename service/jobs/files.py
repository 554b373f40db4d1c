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
    """The files of a run and their sizes in bytes, without the hidden ones."""
    # Not by `rglob`, which fails where a run that goes on removes a directory.
    for directory, _, names in os.walk(root):
        for path in (Path(directory, name) for name in names):
            with contextlib.suppress(OSError):
                if path.is_file() and not _is_hidden(path.relative_to(root)):
                    yield path, path.stat().st_size


def file_below(root: Path, path: str) -> Path:
    """A file of a run by its path in there.

    Raises:
        FileNotFoundError: If there is none; one that is hidden, or outside where
            links lead, counts as none.
    """
    root = root.resolve()
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # no possible name
        file = (root / path).resolve(strict=True)
        # Opening a pipe would wait for someone to write.
        if file.is_file() and not _is_hidden(file.relative_to(root)):
            return file
    raise FileNotFoundError(path)


def file_response(path: Path) -> Response:
    """A file as it is now, also if it grows while it is sent.

    Raises:
        OSError: If it is no file that can be read.
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
