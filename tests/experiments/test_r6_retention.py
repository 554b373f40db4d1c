"""R6: what just meets its criterion, and what just does not."""

from experiments import r6_retention as r6
from tests.experiments.measured import of


def test_criterion_of_r6():
    def holds(middle, whole):
        errors = {0.1: (9.0,) * 5, 0.5: middle, 1.0: whole}
        results = [
            {"retained": p, "rate": 0.1, "seeds": of(test_error=error)}
            for p, error in errors.items()
        ]
        return r6.analyse({"results": results}, r6.Config()).holds

    assert holds((4.0,) * 5, (4.1,) * 5)
    assert not holds((4.0,) * 5, (4.1, 4.1, 4.1, 4.1, 4.0))
    assert not holds((4.0, 4.0, 4.0, 4.0, 9.0), (9.5,) * 5)
