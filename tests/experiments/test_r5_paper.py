"""R5 as the paper had it: its bounds, and what just meets its criterion."""

import numpy as np
import pytest

from experiments import r5_paper
from experiments.trainer import Plan
from tests.experiments.measured import of


def test_criterion():
    def holds(best):
        measured = {
            "L2": of(test_error=(1.42, 1.43, 1.41)),
            r5_paper.BEST: of(test_error=best, at_bound=(0.8,) * 3),
            r5_paper.INVERTED: of(test_error=(2.0,) * 3, at_bound=(0.8,) * 3),
        }
        return r5_paper.analyse(measured, r5_paper.Config()).holds

    assert holds((1.37, 1.37, 1.37))
    assert not holds((1.37, 1.37, 1.45))


@pytest.mark.parametrize(
    ("arm", "bounds"),
    [(r5_paper.BEST, (2.0, 2.0, 2.0)), (r5_paper.INVERTED, (1.6, 1.0, 1.0))],
)
def test_the_bound_of_inverted_dropout_is_p_times_that_of_the_papers(arm, bounds, data):
    trainer = r5_paper.trainer((8, 8), arm, 0.0)
    trainer.train_to_end(data.train, Plan(20, 10, 30.0, seed=1, every=20))
    kernels = [w.numpy() for w in trainer.model.weights if w.name == "kernel"]
    largest = [np.linalg.norm(kernel, axis=0).max() for kernel in kernels]
    assert largest == pytest.approx(bounds, abs=1e-3)
    assert 0 < r5_paper.at_bound(trainer.model) <= 1
