"""The command line of the benchmarks."""

import json

from benchmarks import __main__ as command_line
from benchmarks import inference
from tests.benchmarks.results import RESULTS


def test_the_command_line_runs_a_benchmark(tmp_path, monkeypatch, capsys):
    arguments = ["benchmarks", "inference", "--quick", "--output", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    monkeypatch.setattr(inference, "run", lambda *_: RESULTS["inference"])
    command_line.main()
    written = json.loads((tmp_path / "inference.json").read_text())
    assert written["inference"] == RESULTS["inference"]["inference"]
    assert {"cpu", "threads", "date", "tensorflow", "keras"} <= set(
        written["environment"]
    )
    assert "cnn" in capsys.readouterr().out
