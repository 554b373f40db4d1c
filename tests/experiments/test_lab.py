"""The store: a stopped run goes on, and nothing is measured twice."""

import dataclasses
import json

import pytest

from experiments import r7_size_of_the_data as r7
from experiments.lab import Lab
from experiments.r2_paper import R2_PAPER
from experiments.r2_steadier_inputs import R2
from experiments.r3_high_rates import R3
from experiments.r8_monte_carlo import R8
from experiments.r9_gaussian import R9
from training.errors import UserError


def tiny(lab):
    config = r7.Config(
        sizes=(100,),
        headlines=(100,),
        widths=(8,),
        steps=20,
        tuning_steps=10,
        every=10,
        rates=(0.1, 0.3),
        seeds=(1, 2),
    )
    return r7.run(lab, config)


def test_a_stopped_run_goes_on_and_trains_nothing_twice(tmp_path, data):
    with Lab("r7", tmp_path / "whole", report=lambda line: None) as lab:
        whole, number = tiny(lab), len(lab.records)
    assert number == 8  # two arms: two rates and two seeds each

    trained = []

    def stop_after_three(line):
        trained.append(line)
        if len(trained) == 3:
            raise KeyboardInterrupt

    with (
        pytest.raises(KeyboardInterrupt),
        Lab("r7", tmp_path, report=stop_after_three) as lab,
    ):
        tiny(lab)
    store = tmp_path / "r7" / "measurements.jsonl"
    with store.open("a") as file:
        file.write('{"key": {"arm": "with", "se')  # killed while writing
    with Lab("r7", tmp_path, report=trained.append) as lab:
        assert tiny(lab) == whole
    assert len(trained) == number
    keys = [
        json.dumps(json.loads(line)["key"]) for line in store.read_text().splitlines()
    ]
    assert len(keys) == len(set(keys)) == number


def test_a_changed_key_is_measured_anew(tmp_path):
    with Lab("any", tmp_path, report=lambda line: None) as lab:
        assert lab.once({"steps": 10, "widths": (1, 2)}, lambda: {"x": 1}) == {"x": 1}
        assert lab.once({"steps": 10, "widths": (1, 2)}, lambda: {"x": 2}) == {"x": 1}
        assert lab.once({"steps": 20, "widths": (1, 2)}, lambda: {"x": 3}) == {"x": 3}


def test_a_store_refuses_another_configuration(tmp_path):
    with Lab("any", tmp_path) as lab:
        lab.check({"batch_size": 100, "seeds": (1, 2)})
        lab.check({"batch_size": 100, "seeds": (1, 2, 3), "added": 1})
        with pytest.raises(UserError, match=r"measured with another batch_size\. Move"):
            lab.check({"batch_size": 60, "seeds": (1, 2)})
        with pytest.raises(UserError, match="another added"):
            lab.check({"batch_size": 100, "added": 2})


def test_measurements_without_a_configuration_are_not_taken_for_todays(tmp_path):
    with Lab("any", tmp_path, report=lambda line: None) as lab:
        lab.once({"steps": 10}, lambda: {"x": 1})
        with pytest.raises(UserError, match="measured with an unknown configuration"):
            lab.check({"batch_size": 100})


@pytest.mark.parametrize(
    ("experiment", "needed", "config"),
    [
        (R2, "r1", R2.quick),
        (R2_PAPER, "r1-paper", R2_PAPER.quick),
        (R3, "r1", R3.quick.tuning),
        (R8, "r5", R8.quick.nets),
        (R9, "r5", R9.quick),
    ],
    ids=["r2", "r2-paper", "r3", "r8", "r9"],
)
def test_measurements_of_another_experiment_must_have_todays_configuration(
    tmp_path, data, monkeypatch, experiment, needed, config
):
    """Nothing in their keys tells of the batch size."""
    old = dataclasses.replace(config, batch_size=7)
    with Lab(needed, tmp_path) as lab:
        lab.check(dataclasses.asdict(old))
    monkeypatch.setattr(Lab, "with_seeds", lambda *arguments: [])
    with (
        Lab(experiment.name, tmp_path, report=lambda line: None) as lab,
        pytest.raises(
            UserError, match=f"{needed} was measured with another batch_size"
        ),
    ):
        experiment.run(lab, experiment.quick)


def test_tuning_takes_the_highest_score(tmp_path):
    scores = {0.1: 0.5, 0.3: 0.9, 1.0: 0.7}
    with Lab("any", tmp_path, report=lambda line: None) as lab:
        chosen = lab.tune(
            {"arm": "with"},
            [{"rate": rate} for rate in scores],
            lambda choice: {"score": scores[choice["rate"]]},
        )
    assert chosen == {"rate": 0.3}


def test_two_processes_do_not_share_a_store(tmp_path):
    with (
        Lab("any", tmp_path),
        pytest.raises(UserError, match="Another process"),
        Lab("any", tmp_path),
    ):
        pass
