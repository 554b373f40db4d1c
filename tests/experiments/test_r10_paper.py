"""R10 as the paper had it: what just meets its criterion, and what just does not."""

import pytest

from experiments import r10_paper
from experiments.lab import Lab
from tests.experiments.measured import of


def test_criterion():
    def holds(activations=(1.2, 1.2), losses=(60.0, 60.0)):
        rest = {"near_zero": (0.5, 0.5), "steps": (100, 100)}
        measured = {
            "without": of(mean_activation=(2.0, 2.0), test_loss=(60.0, 60.0), **rest),
            "with": of(mean_activation=activations, test_loss=losses, **rest),
        }
        return r10_paper.analyse(measured, r10_paper.Config()).holds

    assert holds()
    assert holds(losses=(62.9, 57.1))
    assert not holds(activations=(1.2, 1.21))
    assert not holds(losses=(60.0, 63.1))
    assert not holds(losses=(60.0, 56.9))


@pytest.mark.slow
def test_without_dropout_the_training_ends_where_the_losses_meet(tmp_path, data):
    config = r10_paper.Config(
        units=32, steps=400, every=20, watched_images=500, seeds=(1,)
    )
    with Lab("r10-paper", tmp_path, report=lambda line: None) as lab:
        measured = r10_paper.run(lab, config)
    (dropped,), (plain,) = measured["with"], measured["without"]
    assert plain["steps"] < dropped["steps"] == 400
    assert plain["validation_loss"] <= dropped["validation_loss"]
