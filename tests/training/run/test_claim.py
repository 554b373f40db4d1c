"""Who may train in a directory."""

import shutil
from pathlib import Path

import pytest

from training.errors import UserError
from training.run.claim import INHERITED, check_claim, claim, is_claimed, run_id


def test_a_directory_is_claimed_by_one_at_a_time(tmp_path: Path) -> None:
    assert not is_claimed(tmp_path)
    with claim(tmp_path):
        assert is_claimed(tmp_path)
        check_claim(tmp_path)
        with pytest.raises(UserError, match="Another process is training in"):
            claim(tmp_path).__enter__()
    assert not is_claimed(tmp_path)
    with claim(tmp_path):  # again
        pass


def test_a_lock_that_the_parent_has_passed_on_is_not_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with claim(tmp_path):
        monkeypatch.setenv(INHERITED, str(tmp_path))
        with claim(tmp_path):
            check_claim(tmp_path)
        assert is_claimed(tmp_path)


def test_a_claim_ends_with_its_directory(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    for remake in (False, True):
        directory.mkdir()
        with claim(directory):
            shutil.rmtree(directory)
            if remake:
                directory.mkdir()
                (directory / ".pid").write_text("1")  # of another process
            with pytest.raises(UserError, match="run has been removed"):
                check_claim(directory)


def test_a_run_keeps_its_name_and_no_other_has_it(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    assert run_id(first) == run_id(first)
    assert run_id(first) != run_id(second)
