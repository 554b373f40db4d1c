"""A run that gets on touches a file; one that hangs does not."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from training.run import heartbeat
from training.run.files import BEAT, last_progress
from training.run.heartbeat import beat, beating, count_steps_alone


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(heartbeat, "_SECONDS_BETWEEN_BEATS", 0.01)
    yield
    count_steps_alone(False)


def forget(directory: Path) -> None:
    os.utime(directory / BEAT, (0, 0))


def wait_for_a_beat(directory: Path) -> None:
    deadline = time.monotonic() + 60
    while not has_beaten(directory):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def has_beaten(directory: Path) -> bool:
    return last_progress(directory) != 0


def work() -> None:
    """Use the processor for a while."""
    end = time.thread_time() + 0.01
    while time.thread_time() < end:
        pass


ALONE = """
import sys, threading, time
from pathlib import Path
from training.run import heartbeat, files
from tests.training.run.test_heartbeat import forget, has_beaten, work

heartbeat._SECONDS_BETWEEN_BEATS = 0.01
place = Path(sys.argv[1])
assert files.last_progress(place) is None
with heartbeat.beating(place):
    assert abs(files.last_progress(place) - time.time()) < 60
    time.sleep(0.2)  # what has been done until now
    forget(place)
    threading.Event().wait(0.5)  # as one that waits for ever
    print(has_beaten(place))
    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    time.sleep(0.2)
    print(has_beaten(place))
forget(place)
work()
time.sleep(0.2)
print(has_beaten(place))
"""


def test_work_of_any_thread_is_progress_and_waiting_is_none(tmp_path: Path) -> None:
    """In a process of its own, where no other thread does anything."""
    words = [sys.executable, "-c", ALONE, str(tmp_path)]
    found = subprocess.run(
        words, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True
    )
    assert found.stdout.split() == ["False", "True", "False"]


def test_in_an_epoch_only_steps_are_progress(tmp_path: Path) -> None:
    """But for the first and the last step, which may have to be compiled."""
    from training.run.progress import ReportProgress  # which imports Keras

    report = ReportProgress(tmp_path, epochs=2, steps=4)
    with beating(tmp_path):
        for step, work_counts in enumerate((True, False, False, True)):
            report.on_train_batch_begin(step)
            time.sleep(0.05)
            forget(tmp_path)
            work()
            time.sleep(0.05)
            assert has_beaten(tmp_path) == work_counts
            report._next_write = 0.0
            report.on_train_batch_end(step)
            assert has_beaten(tmp_path)
        report.on_train_batch_begin(1)
        report.on_train_end()
        forget(tmp_path)
        work()
        wait_for_a_beat(tmp_path)


def test_a_directory_that_is_gone_ends_nothing(tmp_path: Path) -> None:
    beat(tmp_path / "gone")
    with beating(tmp_path / "gone"):
        pass
