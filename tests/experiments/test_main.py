"""The command line of the experiments."""

import subprocess
import sys

from experiments import __main__ as command_line
from experiments.registry import EXPERIMENTS
from tests.conftest import REPOSITORY


def test_the_list_has_every_experiment(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["experiments", "list"])
    monkeypatch.setattr(command_line, "start_tensorflow", lambda: None)  # it runs
    assert command_line.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*EXPERIMENTS]


def test_an_unknown_experiment_is_refused_in_one_line():
    process = subprocess.run(
        [sys.executable, "-m", "experiments", "run", "r99"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 2
    assert process.stderr.splitlines()[-1] == (
        f"python -m experiments: NAME must be one of {', '.join(EXPERIMENTS)} or all. "
        "Received: r99."
    )
