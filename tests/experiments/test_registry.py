"""Designs that have not been run yet: they run in small, and no page shows them."""

import pytest

from experiments import results
from experiments.__main__ import PAGE, RESULTS
from experiments.registry import DESIGNED, EXPERIMENTS


@pytest.mark.parametrize("experiment", DESIGNED, ids=lambda e: e.name)
def test_a_design_is_not_among_the_results(experiment):
    assert experiment.name not in EXPERIMENTS
    assert not (RESULTS / f"{experiment.name}.json").exists()
    assert experiment.title not in PAGE.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("experiment", DESIGNED, ids=lambda e: e.name)
def test_a_design_runs_in_small(experiment, tmp_path, data):
    line = results.carry_out(experiment, True, None, tmp_path, tmp_path / "results")
    assert line.endswith((" | HOLDS", " | DOES NOT HOLD"))
    assert (tmp_path / "results" / f"{experiment.name}.png").exists()
