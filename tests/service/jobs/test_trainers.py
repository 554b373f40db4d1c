"""The processes that train."""

import errno
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from service.jobs import trainers
from service.jobs.trainers import End, LocalTrainers, command, environment, processes
from tests.conftest import REPOSITORY
from tests.service.services import wait_until
from training.run.claim import is_claimed
from training.run.files import LOG


def test_a_trainer_is_known_by_whatever_name_python_has(tmp_path: Path) -> None:
    """A service may be started as `python`, the next one as `python3`."""
    python = tmp_path / "another-python"
    python.symlink_to(sys.executable)
    _, *words = command(tmp_path / "runs" / "1")
    sleep = "import time; time.sleep(600)"
    with subprocess.Popen([str(python), "-c", sleep, *words]) as process:
        try:
            wait_until(lambda: processes(tmp_path / "runs" / "1"))
            (found,) = processes(tmp_path / "runs" / "1")
            assert found.pid == process.pid
            assert processes(tmp_path / "runs" / "11") == []
        finally:
            process.kill()


STUBBORN = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "open(sys.argv[1] + '/ready', 'w').close(); time.sleep(600)"
)
QUICK = "import sys; print('a line', flush=True); sys.exit(7)"


def run_instead(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let trainers run some code instead of train.py."""
    monkeypatch.setattr(
        trainers, "command", lambda d: [sys.executable, "-c", code, str(d)]
    )


def end_of(local: LocalTrainers, directory: Path) -> End:
    """Wait for the end of a trainer."""
    ends: list[End | None] = [None]

    def has_ended() -> bool:
        ends.append(local.end(directory))
        return ends[-1] is not None

    wait_until(has_ended)
    assert ends[-1] is not None
    return ends[-1]


def test_a_trainer_tells_its_exit_status_and_adds_to_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_instead(monkeypatch, QUICK)
    (tmp_path / LOG).write_text("before\n")
    local = LocalTrainers()
    local.start(tmp_path)
    assert end_of(local, tmp_path) == End(7)
    assert (tmp_path / LOG).read_text() == "before\na line\n"
    # It was told once; who looks again does not know.
    assert local.end(tmp_path) == End(None)


def test_a_trainer_that_does_not_stop_is_made_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_instead(monkeypatch, STUBBORN)
    local = LocalTrainers()
    local.start(tmp_path)
    wait_until((tmp_path / "ready").exists)
    local.stop(tmp_path)
    local.stop(tmp_path)  # ten seconds have not passed
    assert local.end(tmp_path) is None
    monkeypatch.setattr(trainers, "_GRACE_SECONDS", 0.0)
    local.stop(tmp_path)
    assert end_of(local, tmp_path) == End(-signal.SIGKILL)


def test_another_service_adopts_a_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_instead(monkeypatch, STUBBORN)
    first, second = LocalTrainers(), LocalTrainers()
    first.start(tmp_path)
    assert second.end(tmp_path) is None  # seen at once
    second.start(tmp_path)  # starts none beside it
    (process,) = processes(tmp_path)
    process.kill()
    assert end_of(second, tmp_path) == End(None)
    assert first.end(tmp_path) == End(-signal.SIGKILL)  # it alone knows


def test_a_trainer_that_is_stopped_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_instead(monkeypatch, STUBBORN)
    local = LocalTrainers()
    local.start(tmp_path)
    wait_until((tmp_path / "ready").exists)
    (process,) = processes(tmp_path)
    process.suspend()
    local.kill(tmp_path)
    assert end_of(local, tmp_path) == End(-signal.SIGKILL)


def test_a_process_that_cannot_be_made_is_no_trainer_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of fork has the number of a lock that is taken."""

    def fork(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", fork)
    local = LocalTrainers()
    with pytest.raises(BlockingIOError):
        local.start(tmp_path)
    assert not is_claimed(tmp_path)
    assert local.end(tmp_path) == End(None)


def test_trainers_leave_the_processor_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_instead(monkeypatch, STUBBORN)
    local = LocalTrainers()
    local.start(tmp_path)
    (process,) = processes(tmp_path)
    try:
        assert process.nice() == min(psutil.Process().nice() + 10, 19)
        assert process.ionice().ioclass == psutil.IOPRIO_CLASS_IDLE
        # Each session has a share of its own, whatever the priorities in it.
        group = Path(f"/proc/{process.pid}/autogroup")
        if group.exists():
            assert group.read_text().endswith("nice 10\n")
    finally:
        process.kill()
        end_of(local, tmp_path)


def test_trainers_do_not_inherit_options_and_token() -> None:
    variables = {
        "KERASNORM_TOKEN": "word",
        "KERASNORM_EPOCHS": "1",
        "CUDA_VISIBLE_DEVICES": "0",
        "MY_KERASNORM_": "x",
        "PROMETHEUS_MULTIPROC_DIR": "/tmp/metrics-of-the-service",
    }
    assert environment(variables) == {"CUDA_VISIBLE_DEVICES": "0", "MY_KERASNORM_": "x"}


def test_a_trainer_goes_on_with_the_run_in_its_directory(tmp_path: Path) -> None:
    _, *words = command(tmp_path)
    assert words == ["-u", str(REPOSITORY / "train.py"), "--resume", str(tmp_path)]
