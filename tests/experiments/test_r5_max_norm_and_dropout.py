"""R5: its criterion, and the weights that it keeps for R8 and R9."""

import pytest

from experiments import r5_max_norm_and_dropout as r5
from experiments.lab import Lab
from tests.experiments.measured import of


def holds_r5(l2, best):
    arms = {arm: of(test_error=l2) for arm in r5.PAPER}
    arms[r5.BEST] = of(test_error=best)
    chosen = {arm: {"rate": 0.1} for arm in r5.PAPER}
    measured = {"arms": arms, "chosen": chosen, "explored": arms}
    return r5.analyse(measured, r5.FULL).holds


def test_criterion_of_r5():
    l2 = (2.0, 2.1, 2.0, 2.1, 2.0)
    assert holds_r5(l2, (1.7, 1.7, 1.8, 1.7, 1.7))
    assert not holds_r5(l2, (1.9, 1.9, 1.9, 1.9, 1.9))  # less than 10 %
    assert not holds_r5(l2, (0.5, 2.2, 0.5, 2.2, 2.2))  # interval around 0


def test_weights_that_are_gone_are_trained_again(tmp_path, data):
    with Lab("r5", tmp_path, report=lambda line: None) as lab:
        expected = r5.trained(lab, r5.BEST, 1, r5.QUICK)
        number = len(lab.records)
        for path in (tmp_path / "r5" / "weights").iterdir():
            path.unlink()
        network = r5.kept(lab, r5.BEST, 1, r5.QUICK)
        wrong = network.outputs(data.test.images).argmax(axis=1) != data.test.labels
        assert 100 * wrong.mean() == pytest.approx(expected["test_error"])
        assert len(lab.records) == number
        assert list((tmp_path / "r5" / "weights").iterdir())
