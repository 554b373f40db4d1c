"""Every experiment, carried out in small."""

import json

import pytest

from experiments import results
from experiments.registry import EXPERIMENTS
from experiments.report import read_results

FAST = ("r1", "r2", "r8", "r11", "r12")  # r8 brings r5 with it


@pytest.mark.parametrize(
    "name",
    [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in EXPERIMENTS],
)
def test_every_experiment_in_small(name, tmp_path, data):
    experiment = EXPERIMENTS[name]
    output = tmp_path / "results"
    line = results.carry_out(experiment, True, None, tmp_path / "stores", output)
    assert line.startswith(f"{name}: {experiment.claim} | Criterion: ")
    assert line.endswith((" | HOLDS", " | DOES NOT HOLD"))
    result = json.loads((output / f"{name}.json").read_text())
    assert result["mode"] == "quick"
    assert result["criterion"] == experiment.criterion
    assert result["numbers"]
    rows = (output / f"{name}.csv").read_text().splitlines()
    assert len(rows) == result["trainings"] + 1
    assert (output / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    assert not read_results(output)  # a quick result is none
