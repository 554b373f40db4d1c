"""What counts as a run of the library's tests that has passed."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("pass", pytest.ExitCode.OK),
        ("pytest.skip('No backend.')", pytest.ExitCode.NO_TESTS_COLLECTED),
        ("assert False", pytest.ExitCode.TESTS_FAILED),
    ],
)
def test_a_run_that_skips_everything_does_not_pass(body, status, tmp_path):
    (tmp_path / "test_it.py").write_text(f"import pytest\n\ndef test(): {body}\n")
    options = ["-p", "tests.kerasnorm.conftest", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, str(tmp_path)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == status, done.stdout
