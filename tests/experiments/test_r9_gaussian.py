"""R9: what just meets its criterion, and what just does not."""

from experiments import r5_max_norm_and_dropout as r5
from experiments import r9_gaussian as r9
from tests.experiments.measured import of


def test_criterion_of_r9():
    def holds(gaussian):
        measured = {
            "Bernoulli": of(test_error=(2.0,) * 5),
            "Gaussian": of(test_error=gaussian),
        }
        return r9.analyse(measured, r5.FULL).holds

    assert holds((2.1, 2.0, 2.1, 2.0, 2.1))
    assert holds((1.5,) * 5)
    assert not holds((2.2,) * 5)
    assert not holds((2.4, 1.8, 2.4, 1.8, 2.1))  # too uncertain
