"""The page's own folder: the pictures that were uploaded to it and those it shows."""

import contextlib
import io
import os
import secrets
import shutil
import stat
import threading
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from training.errors import UserError, first_line

MOST_BYTES = 2**28
MOST_FILES = 1000
MOST_PIXELS = 30_000_000

# The ending of each format that is taken. Pillow reads more, some by other programs.
_ENDINGS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "GIF": "gif", "BMP": "bmp"}
MEDIA_TYPES = {
    **{f".{ending}": f"image/{ending}" for ending in _ENDINGS.values()},
    ".jpg": "image/jpeg",
}


class Folder:
    """A folder that no other program uses and that does not grow without a bound.

    Args:
        path: Where it is to be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._lock = threading.Lock()
        self._changed = 0

    def make(self) -> None:
        """Make the folder. What an earlier service has left there is removed."""
        self.remove()
        self.path.mkdir(mode=0o700)

    def add(self, content: bytes) -> Path:
        """Keep an uploaded picture under a name of the folder's own.

        Args:
            content: PNG, JPEG, WebP, GIF or BMP. It is not decoded.

        Raises:
            UserError: If it is no such picture or has too many pixels.
        """
        path = self.path / secrets.token_hex(16) / f"picture.{_ending(content)}"
        path.parent.mkdir()
        path.write_bytes(content)
        return path

    def find(self, name: str) -> Path | None:
        """Return the picture of this name, if it lies in the folder."""
        try:
            path = Path(name).resolve()
            is_file = stat.S_ISREG(path.stat().st_mode)
        except (OSError, RuntimeError, ValueError):  # a loop of links, or no path
            return None
        is_own = path.is_relative_to(self.path) and path.suffix in MEDIA_TYPES
        return path if is_file and is_own else None

    def trim(self) -> list[str]:
        """Remove the oldest files until the rest is within bounds; return their names.

        It costs nothing where no picture has come since the last time.
        """
        with self._lock:
            # Each picture is in a folder of its own, so that this one changes.
            changed = self.path.stat().st_mtime_ns
            if changed == self._changed:
                return []
            removed = _beyond(self._files())
            for path in removed:
                path.unlink(missing_ok=True)
            for path in {path.parent for path in removed} - {self.path}:
                with contextlib.suppress(OSError):  # it is not empty
                    path.rmdir()
            self._changed = changed
            return [str(path) for path in removed]

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _files(self) -> list[tuple[Path, os.stat_result]]:
        """Return all files, the newest first."""
        files = []
        for path in self.path.rglob("*"):
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(status.st_mode):
                files.append((path, status))
        return sorted(files, key=lambda file: -file[1].st_mtime_ns)


def _beyond(files: Iterable[tuple[Path, os.stat_result]]) -> list[Path]:
    """Return what is beyond the bounds, counted from the first file."""
    size, beyond = 0, []
    for number, (path, status) in enumerate(files, start=1):
        size += status.st_size
        if size > MOST_BYTES or number > MOST_FILES:
            beyond.append(path)
    return beyond


def _ending(content: bytes) -> str:
    """Return the ending of a picture's format, from its head alone."""
    try:
        with Image.open(io.BytesIO(content), formats=[*_ENDINGS]) as picture:
            size, ending = picture.size, _ENDINGS[picture.format or ""]
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(first_line(error)) from error
    except (OSError, SyntaxError, ValueError, KeyError) as error:
        raise UserError(
            "A picture must be a readable PNG, JPEG, WebP, GIF or BMP. "
            "Received: something else."
        ) from error
    if size[0] * size[1] > MOST_PIXELS:
        raise _too_large("{} x {}".format(*size))
    return ending


def _too_large(received: str) -> UserError:
    return UserError(
        f"A picture must have at most {MOST_PIXELS:,} pixels. Received: {received}. "
        "Make it smaller."
    )
