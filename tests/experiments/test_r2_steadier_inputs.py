"""R2: what just meets its criterion, and what just does not."""

from experiments import r1_bn_is_faster as r1
from experiments import r2_steadier_inputs as r2
from tests.experiments.measured import of


def test_criterion_of_r2():
    def holds(*drifts):
        measured = {"without": of(drift=(0.2,) * 5), "with": of(drift=drifts)}
        return r2.analyse(measured, r1.FULL).holds

    assert holds(0.1, 0.1, 0.1, 0.1, 0.19)
    assert not holds(0.1, 0.1, 0.1, 0.1, 0.2)
