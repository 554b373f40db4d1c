"""R12: what just meets its criterion, and what just does not."""

from experiments import r12_order as r12
from tests.experiments.measured import of


def test_criterion_of_r12():
    def holds(shift=(1.5,) * 5, accuracy=(89.0,) * 5, loss=(0.29,) * 5):
        moving = {"accuracy_moving": (88.9,) * 5, "loss_moving": (0.3,) * 5}
        real = {"accuracy_real": accuracy, "loss_real": loss}
        return r12.analyse(
            {
                "before": of(shift=shift, **moving, **real),
                "after": of(shift=(1.1,) * 5, **moving, **real),
                "explored": of(
                    temperature_moving=(1.0,) * 5,
                    temperature_real=(1.2,) * 5,
                    scaled_loss_moving=(0.3,) * 5,
                    scaled_loss_real=(0.3,) * 5,
                ),
            },
            r12.Config(),
        ).holds

    assert holds()
    assert not holds(shift=(1.5, 1.5, 1.5, 1.5, 1.1))
    assert not holds(accuracy=(88.8,) * 5)
    assert not holds(loss=(0.29, 0.29, 0.29, 0.29, 0.31))
