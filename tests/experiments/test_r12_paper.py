"""R12 as the paper had it: what just meets its criterion, and what just does not."""

from experiments import r12_paper
from tests.experiments.measured import of


def test_criterion():
    def holds(gain=5.0, gain_behind=0.1, shift=1.5):
        measured = {
            "before": of(
                accuracy_moving=(70.0, 70.0),
                accuracy_real=(75.0, 70.0 + gain),
                shift=(1.5, shift),
            ),
            "after": of(
                accuracy_moving=(88.0, 88.0),
                accuracy_real=(88.0, 88.0 + gain_behind),
                shift=(1.1, 1.1),
            ),
        }
        results = [{"depth": 8, **measured}]
        return r12_paper.analyse({"results": results}, r12_paper.Config()).holds

    assert holds()
    assert not holds(gain=0.0, gain_behind=-1.0)
    assert not holds(gain=0.1, gain_behind=0.2)
    assert not holds(shift=1.1)


def test_dropout_stands_in_front_of_every_normalization_or_behind_the_last():
    def order(arm):
        model = r12_paper.network(1, depth=3, width=4, arm=arm)
        names = [type(layer).__name__ for layer in model.layers]
        return [n for n in names if n in ("KBatchNorm", "KDropout")]

    norm, dropout = "KBatchNorm", "KDropout"
    assert order("before") == [norm, dropout, norm, dropout, norm]
    assert order("after") == [norm, norm, norm, dropout]
