"""R4: what just meets its criterion, and what just does not."""

from experiments import r4_lenet as r4
from tests.experiments.measured import of


def test_criterion_of_r4():
    def holds(*gains):
        measured = {
            "without": of(test_accuracy=(80,) * 5),
            "with": of(test_accuracy=tuple(80 + gain for gain in gains)),
        }
        return r4.analyse(measured, r4.Config()).holds

    assert holds(3, 3, 3, 3, 3.1)
    assert not holds(2.9, 2.9, 2.9, 2.9, 3)  # below 3 points
    assert not holds(15, 15, 0, 0, 0)  # interval around 0
