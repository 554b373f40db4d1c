"""R6 as the paper had it: what just meets its criterion, and what just does not."""

from experiments import r6_paper
from tests.experiments.measured import of


def test_criterion():
    def holds(middle=(1.5, 1.5), low=(2.0, 2.0), whole=(1.8, 1.8)):
        errors = {0.2: low, 0.4: (1.5, 1.5), 0.6: middle, 0.8: (1.5, 1.5), 1.0: whole}
        results = [
            {"retained": p, "seeds": of(test_error=values)}
            for p, values in errors.items()
        ]
        measured = {"n": results, "pn": results}
        return r6_paper.analyse(measured, r6_paper.Config()).holds

    assert holds()
    assert not holds(low=(2.0, 1.5))
    assert not holds(whole=(1.5, 2.0))
    assert holds(middle=(1.7, 1.7))  # 0.2 apart, and 0.23 below the ends
    assert not holds(middle=(1.75, 1.75))  # 0.25 apart, and 0.22 below
