"""Every experiment, carried out in small."""

import dataclasses
import json

import pytest

from experiments import results
from experiments.arm import Sizes
from experiments.experiment import Experiment, Finding, Number
from experiments.registry import EXPERIMENTS
from experiments.report import read_results
from training.errors import UserError

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


@pytest.fixture
def experiment():
    """Two measurements; the second is not made while the machine is off."""

    def run(lab, config):
        measured = [lab.once({"seed": 1}, lambda: {"x": 1.0})]
        if machine["off"]:
            raise KeyboardInterrupt
        return {"all": [*measured, lab.once({"seed": 2}, lambda: {"x": 2.0})]}

    machine = {"off": True}
    finding = Finding(holds=True, measured="something", numbers=[Number("x", "1")])
    return machine, Experiment(
        *("any", "Title", "A claim.", "source", "A criterion."),
        full=Sizes(40, 10, tuning_steps=20, every=20, rates=(0.1,)),
        quick=None,
        run=run,
        analyse=lambda measured, config: finding,
        plot=lambda measured, figure: None,
    )


def test_another_machine_goes_on_from_what_was_kept(tmp_path, experiment):
    machine, any_experiment = experiment
    here, there, output = (tmp_path / name for name in ("here", "there", "results"))
    with pytest.raises(KeyboardInterrupt):
        results.carry_out(any_experiment, False, None, here, output)
    assert "1 measurements, unfinished" in results.keep(any_experiment, here, output)
    kept = json.loads((output / "any.json").read_text())
    assert kept["mode"] == "unfinished"
    assert "holds" not in kept

    machine["off"] = False
    results.go_on([any_experiment], there, output)
    results.carry_out(any_experiment, False, None, there, output)
    finished = json.loads((output / "any.json").read_text())
    assert finished["mode"] == "full"
    assert finished["records"][0] == kept["records"][0]
    assert [r["key"] for r in finished["records"]] == [{"seed": 1}, {"seed": 2}]
    with pytest.raises(UserError, match="of a finished run, which stays"):
        results.keep(any_experiment, there, output)
    assert json.loads((output / "any.json").read_text()) == finished


def test_measurements_of_another_configuration_are_not_gone_on_from(
    tmp_path, experiment
):
    _, any_experiment = experiment
    with pytest.raises(KeyboardInterrupt):
        results.carry_out(any_experiment, False, None, tmp_path, tmp_path)
    results.keep(any_experiment, tmp_path, tmp_path)
    changed = dataclasses.replace(any_experiment.full, steps=80)
    other = dataclasses.replace(any_experiment, full=changed)
    results.go_on([other], tmp_path / "there", tmp_path)
    with pytest.raises(UserError, match="measured with another steps"):
        results.carry_out(other, False, None, tmp_path / "there", tmp_path)
    with pytest.raises(UserError, match="has measurements already"):
        results.go_on([other], tmp_path / "there", tmp_path)


def test_results_without_measurements_are_not_gone_on_from(tmp_path, experiment):
    with pytest.raises(UserError, match="holds no measurements of any to go on from"):
        results.go_on([experiment[1]], tmp_path, tmp_path)
