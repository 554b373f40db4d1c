"""The command line of the experiments."""

import subprocess
import sys

from experiments.registry import EXPERIMENTS
from tests.conftest import REPOSITORY


def test_the_commands():
    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "experiments", *arguments],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=300,
        )

    listed = run("list")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [*EXPERIMENTS]
    refused = run("run", "r99")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1] == (
        f"python -m experiments: NAME must be one of {', '.join(EXPERIMENTS)} or all. "
        "Received: r99."
    )
