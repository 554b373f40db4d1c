"""How far training has come, as it is written."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from training.run import files, progress
from training.run.files import Progress
from training.run.progress import ReportProgress


def test_it_is_written_once_a_second_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    fake = SimpleNamespace(monotonic=lambda: clock[0])
    monkeypatch.setattr(progress, "time", fake)
    report = ReportProgress(tmp_path, epochs=3, steps=10)

    def written() -> tuple[int, int]:
        found = files.progress(tmp_path)
        assert found is not None
        assert (found.epochs, found.steps) == (3, 10)
        return found.epoch, found.step

    report.on_epoch_begin(0)
    # The clock, the steps done, and the steps in the file.
    for clock[0], step, expected in (
        (100.0, 1, 1),
        (100.9, 2, 1),
        (101.1, 3, 3),
        (102.0, 4, 3),
        (102.2, 5, 5),
    ):
        report.on_train_batch_end(step - 1)
        assert written() == (1, expected)
    report.on_epoch_begin(2)
    report.on_train_end()
    assert written() == (3, 10)


def test_a_full_disk_does_not_end_the_run(tmp_path: Path) -> None:
    report = ReportProgress(tmp_path / "gone", epochs=3, steps=10)
    report.on_train_end()


def test_a_finished_run_has_no_step_left(tmp_path: Path) -> None:
    """Resumed after its last epoch, it begins none."""
    ReportProgress(tmp_path, epochs=3, steps=10).on_train_end()
    assert files.progress(tmp_path) == Progress(epoch=3, epochs=3, step=10, steps=10)
