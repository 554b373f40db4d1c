"""N6: what just meets its criterion, and what just does not."""

from experiments import n6_both as n6
from tests.experiments.measured import of


def test_criterion_of_n6():
    config = n6.Config()
    noise = [0.1 * (i % 2) for i in range(len(config.seeds))]

    def holds(dropout, both):
        errors = {"neither": 15.0, "dropout": dropout, "batch norm": 14.0, "both": both}
        arms = {
            arm: of(
                test_error=[
                    value + (n if arm in ("dropout", "both") else 0) for n in noise
                ]
            )
            for arm, value in errors.items()
        }
        return n6.analyse({str(s): arms for s in config.sizes}, config).holds

    assert holds(dropout=14.0, both=13.8)
    assert not holds(dropout=15.0, both=14.5)  # no gain without normalization
    assert not holds(dropout=14.0, both=13.0)  # the same gain
    assert not holds(dropout=14.0, both=12.5)
