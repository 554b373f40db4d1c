"""The processes that train."""

import subprocess
import sys
from pathlib import Path

from service.jobs.trainers import command, processes
from tests.service.services import wait_until


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
