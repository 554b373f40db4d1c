"""R2 as the paper had it: what just meets its criterion, and what just does not."""

from experiments import r1_paper, r2_paper
from tests.experiments.measured import of


def test_criterion():
    def holds(*wandering):
        drift = (0.1,) * len(wandering)
        measured = {
            "without": of(wandering=(0.5,) * len(wandering), drift=drift),
            "with": of(wandering=wandering, drift=drift),
        }
        return r2_paper.analyse(measured, r1_paper.FULL).holds

    assert holds(0.4, 0.49)
    assert not holds(0.4, 0.5)
