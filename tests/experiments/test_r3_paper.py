"""R3 as the paper had it: what just meets its criterion, and what just does not."""

from experiments import r3_paper

CONFIG = r3_paper.Config()
GOOD = 95.0


def up_to(count):
    """Accuracies that are usable at the first rates of the grid."""
    return [GOOD] * count + [10.0] * (6 - count)


def test_criterion():
    def holds(without, with_norm):
        seed = {"without": without, "with": with_norm}
        clear = {"without": up_to(2), "with": up_to(5)}
        measured = {"sigmoid": [clear, clear], "relu": [clear, seed]}
        return r3_paper.analyse(measured, CONFIG).holds

    assert holds(up_to(2), up_to(4))  # 4 times the rate
    assert not holds(up_to(2), up_to(3))
    assert not holds(up_to(0), up_to(6))  # too slow, perhaps
    assert not holds(up_to(2), up_to(0))
    assert not holds(up_to(2), [GOOD, GOOD, GOOD, 89.9, 10.0, 10.0])
