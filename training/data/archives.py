"""Find a dataset's original archives on this machine."""

import hashlib
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from training.errors import UserError
from training.options.values import REPOSITORY

SYSTEM = Path("/usr/share/datasets")

# Debian's package dataset-fashion-mnist has the original deflate streams with rewritten
# gzip headers, so TFDS's checksums do not match. An original header holds only the
# file's name and this time stamp.
_ORIGINAL_TIMES = {"train": 1504176606, "t10k": 1504176627}
_DEFLATE, _FNAME, _UNIX = 8, 8, 3


def find(
    dataset: str, file_names: Iterable[str], given: Path | None, workspace: Path
) -> Path | None:
    """Return the first directory that holds any of a dataset's archives.

    Args:
        dataset: TFDS's name of the dataset, without its configuration.
        file_names: The original names of its archives.
        given: The directory that the user named.
        workspace: An empty directory for archives that must be restored.

    Returns:
        The directory, or None if the archives must be downloaded.

    Raises:
        UserError: If the directory that the user named holds none of them.
    """
    names = sorted(file_names)
    if given is not None:
        if names and not _holds_any(given, names):
            raise UserError(
                f"`--archives` must be a directory with {_listed(names)}. "
                f"Received: {given}."
            )
        return given
    if _holds_any(own := own_directory(dataset), names):
        return own
    if _holds_any(system := system_directory(dataset), names):
        if dataset != "fashion_mnist":
            return system
        restore_headers(system, names, workspace)
        return workspace
    return None


def own_directory(dataset: str) -> Path:
    """Return the directory of the repository's own copy."""
    return REPOSITORY / "datasets" / dataset


def system_directory(dataset: str) -> Path:
    """Return the directory of the copy from the system's package."""
    return SYSTEM / dataset.replace("_", "-")


def restore_headers(source: Path, names: Iterable[str], destination: Path) -> None:
    """Copy Fashion-MNIST's archives with the gzip headers of the originals."""
    for name in names:
        if (source / name).is_file():
            header = _gzip_header(
                name.removesuffix(".gz"), _ORIGINAL_TIMES[name.split("-")[0]]
            )
            archive = (source / name).read_bytes()
            (destination / name).write_bytes(header + _deflated(archive))


def _gzip_header(name: str, time: int) -> bytes:
    """Return the header of RFC 1952, section 2.3."""
    fixed = struct.pack("<BBBBIBB", 0x1F, 0x8B, _DEFLATE, _FNAME, time, 0, _UNIX)
    return fixed + name.encode("latin-1") + b"\0"


def _deflated(archive: bytes) -> bytes:
    """Return all after the header: the deflate stream, its checksum and its size."""
    start = 10
    if archive[3] & _FNAME:
        start = archive.index(b"\0", start) + 1
    return archive[start:]


def corrupt(directory: Path, checksums: Mapping[str, str]) -> list[str]:
    """Return the names of the archives whose SHA-256 is not the expected one."""
    return [
        name
        for name, expected in sorted(checksums.items())
        if (path := directory / name).is_file() and _sha256(path) != expected
    ]


def _holds_any(directory: Path, names: Iterable[str]) -> bool:
    return any((directory / name).is_file() for name in names)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _listed(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
