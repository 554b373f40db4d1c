"""C1 to C3: what just meets their criterion, and what just does not."""

from experiments import comparison
from tests.experiments.measured import of


def test_criterion_of_the_comparisons():
    def holds(ours, seconds):
        theirs = (90.0, 90.1, 90.0, 90.1, 90.0)
        nothing = (None,) * 5
        measured = {
            "mnist": {
                "kerasnorm": of(test_accuracy=ours, steps_to_target=nothing),
                "Keras": of(test_accuracy=theirs, steps_to_target=nothing),
                "seconds_per_step": {"kerasnorm": seconds, "Keras": 0.1},
            }
        }
        return comparison.analyse(measured, comparison.C1.full).holds

    noise = (90.1, 90.0, 90.0, 90.2, 89.9)
    assert holds(noise, 0.109)
    assert not holds(noise, 0.111)
    assert not holds((91.0, 91.1, 91.1, 91.1, 91.0), 0.05)  # better is not equal
    assert not holds((89.0, 89.1, 89.1, 89.1, 89.0), 0.05)
