"""R3: what just meets its criterion, and what just does not."""

from experiments import r1_bn_is_faster as r1
from experiments import r3_high_rates as r3
from tests.experiments.measured import of


def holds_r3(with_norm, without=(90, 50, 10)):
    def measured(accuracies):
        return [of(accuracy=(a,) * 5, finite=(a is not None,) * 5) for a in accuracies]

    both = {"with": measured(with_norm), "without": measured(without), "base_rate": 1}
    both["explored"] = {arm: measured((50, 50)) for arm in r1.ARMS}
    return r3.analyse(both, r3.Config()).holds


def test_criterion_of_r3():
    assert holds_r3((97, 96, 20))
    assert not holds_r3((97, 95.9, 20))
    assert not holds_r3((97, 97, 10))
    assert not holds_r3((97, 97, None))
