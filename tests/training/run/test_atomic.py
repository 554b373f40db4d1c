"""Files that are whole, and directories that can be written to."""

import errno
import os
from pathlib import Path

import pytest

from tests.training.runs import Disk
from training.errors import UserError
from training.run.atomic import check_writable, sync_tree, write_atomically


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for text in ("first", "zweite, größer"):
        write_atomically(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_on_the_disk_before_its_name_and_then_the_name(
    tmp_path: Path, disk: Disk
) -> None:
    write_atomically(tmp_path / "a.txt", "text")
    new = tmp_path / ".a.txt.new"
    assert disk.events == [("sync", new), ("rename", new), ("sync", tmp_path)]


def test_a_tree_is_on_the_disk_with_all_its_directories(
    tmp_path: Path, disk: Disk
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").touch()
    sync_tree(tmp_path)
    everything = {tmp_path, *tmp_path.rglob("*")}
    assert {path for _, path in disk.events} == everything


def test_a_file_system_that_cannot_sync_directories_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fsync", fsync)
    error = errno.EINVAL
    write_atomically(tmp_path / "a.txt", "text")
    error = errno.EIO
    with pytest.raises(OSError, match="Input/output"):
        write_atomically(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "text"


def test_a_directory_is_made_with_those_above_it(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b", "--run-dir")
    check_writable(tmp_path / "a" / "b", "--run-dir")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_what_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    # Even root can make no file in /proc.
    for directory in (tmp_path / "file" / "below", Path("/proc/self")):
        with pytest.raises(UserError) as caught:
            check_writable(directory, "--run-dir")
        assert "`--run-dir` must be a directory that can" in str(caught.value)
        assert f"Received: {directory}: " in str(caught.value)
