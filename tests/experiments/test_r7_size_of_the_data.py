"""R7: what just meets its criterion, and what just does not."""

from experiments import r7_size_of_the_data as r7
from tests.experiments.measured import of


def test_criterion_of_r7():
    def found(middle, large):
        def size(n, gains):
            without = of(test_error=(5.0,) * 5)
            return {
                "size": n,
                "without": without,
                "with": of(test_error=tuple(5 - g for g in gains)),
            }

        sizes = [size(5_000, middle), size(10_000, large)]
        return r7.analyse({"results": sizes}, r7.Config())

    def holds(middle, large):
        return found(middle, large).holds

    clear, nothing = (0.5, 0.6, 0.5, 0.6, 0.5), (0.1, -0.1, 0.1, -0.1, 0.0)
    assert holds(clear, nothing)
    assert holds(nothing, clear)
    assert not holds(nothing, nothing)
    harm = tuple(-g for g in clear)
    assert not holds(nothing, harm)
    assert found(harm, harm).p > 0.5
