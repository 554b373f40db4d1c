"""N2: what it measures, and what just meets its criterion or just does not."""

import keras
import numpy as np

import kerasnorm
from experiments import n2_averages as n2


def test_the_averages_side_by_side_are_those_of_layers_by_themselves():
    layer = n2.Averages()
    layer.build((None, 2))
    batches = [keras.random.normal((6, 2), 3.0, 2.0, seed=s) for s in range(4)]
    for batch in batches:
        trained = layer(batch, training=True)
    for name, options in n2.AVERAGES.items():
        alone = kerasnorm.KBatchNorm(**options)
        for batch in batches:
            expected = alone(batch, training=True)
        np.testing.assert_allclose(trained, expected, atol=1e-6)
        layer.use(name)
        np.testing.assert_allclose(
            layer(batches[0], training=False),
            alone(batches[0], training=False),
            atol=1e-6,
        )


def test_criterion_of_n2():
    config = n2.Config()

    def holds(recalibrated=80.0, debiased=79.0, end=0.2, one=None):
        row = {f"{n}, {s} steps": 70.0 for n in n2.MEASURED for s in config.at}
        row["recalibrated, 100 steps"] = recalibrated
        row["debiased 0.99, 100 steps"] = debiased
        row["recalibrated, 2000 steps"] = 70 + end
        measured = {
            str(size): [dict(row) for _ in config.seeds] for size in config.batch_sizes
        }
        measured["32"][3] |= one or {}
        return n2.analyse(measured, config).holds

    assert holds()
    assert not holds(one={"recalibrated, 100 steps": 69.0})
    assert not holds(one={"debiased 0.99, 100 steps": 69.0})
    assert not holds(end=0.3)
    assert not holds(end=-0.3)
