"""R10: what just meets its criterion, and what just does not."""

from experiments import r10_sparse_features as r10
from tests.experiments.measured import of


def test_criterion_of_r10():
    def holds(*activations):
        rest = {"near_zero": (0.5,) * 5, "test_loss": (60.0,) * 5}
        measured = {
            "without": of(mean_activation=(2.0,) * 5, **rest),
            "with": of(mean_activation=activations, **rest),
        }
        return r10.analyse(measured, r10.Config()).holds

    assert holds(*(1.2,) * 5)
    assert not holds(1.2, 1.2, 1.2, 1.2, 1.21)
