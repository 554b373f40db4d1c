"""Where archives are looked for, and how Debian's are restored."""

import gzip
import shutil
import struct
from pathlib import Path

import pytest

from tests.conftest import ARCHIVES
from training.data import archives


def test_archives_are_looked_for_in_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    for place in ("given", "own/datasets/some_set", "system/some-set", "workspace"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "a.zip").write_text(place)
    (workspace / "a.zip").unlink()
    monkeypatch.setattr(archives, "REPOSITORY", tmp_path / "own")
    monkeypatch.setattr(archives, "SYSTEM", tmp_path / "system")

    def found(given: Path | None = None) -> Path | None:
        return archives.find("some_set", ["a.zip", "b.zip"], given, workspace)

    assert found(tmp_path / "given") == tmp_path / "given"
    assert found() == tmp_path / "own/datasets/some_set"
    shutil.rmtree(tmp_path / "own")
    assert found() == tmp_path / "system/some-set"  # as they are
    assert list(workspace.iterdir()) == []
    shutil.rmtree(tmp_path / "system")
    assert found() is None


@pytest.mark.parametrize("with_name", [False, True])
def test_rewritten_gzip_headers_are_restored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, with_name: bool
) -> None:
    monkeypatch.setattr(archives, "REPOSITORY", tmp_path / "own")
    monkeypatch.setattr(archives, "SYSTEM", tmp_path / "system")
    source, destination = tmp_path / "system" / "fashion-mnist", tmp_path / "restored"
    source.mkdir(parents=True)
    destination.mkdir()
    names = sorted(path.name for path in ARCHIVES.glob("*.gz"))
    for name in names:
        original = (ARCHIVES / name).read_bytes()
        deflated = original[original.index(b"\0", 10) + 1 :]
        header = struct.pack("<BBBBIBB", 0x1F, 0x8B, 8, 8 * with_name, 0, 2, 3)
        (source / name).write_bytes(header + b"other\0" * with_name + deflated)
        assert gzip.decompress((source / name).read_bytes())
    assert archives.find("fashion_mnist", names, None, destination) == destination
    for name in names:
        assert (destination / name).read_bytes() == (ARCHIVES / name).read_bytes()
