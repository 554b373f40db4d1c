"""Files that are whole, and directories that can be written to."""

from pathlib import Path

import pytest

from training.errors import UserError
from training.run.atomic import check_writable, write_atomically


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for text in ("first", "zweite, größer"):
        write_atomically(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [path]


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
