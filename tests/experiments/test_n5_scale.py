"""N5: its networks, and what just meets its criterion or just does not."""

import keras
import numpy as np

from experiments import n5_scale as n5
from tests.experiments.measured import of


def test_only_the_hidden_layers_are_scaled():
    kernels = [
        [la.kernel.numpy() for la in model.layers if isinstance(la, keras.layers.Dense)]
        for factor in (1.0, 10.0)
        for model in [n5.scaled(1, width=4, arm="without", factor=factor)]
    ]
    for layer, (usual, larger) in enumerate(zip(*kernels, strict=True)):
        np.testing.assert_allclose(larger, (10 if layer < 3 else 1) * usual, rtol=1e-6)


def test_criterion_of_n5():
    config = n5.Config()
    seeds = len(config.seeds)

    def holds(without=10.0, usual=60.0, tiny=85.0, best=86.0, one=None):
        smallest = {"without": without, "epsilon 1e-3": usual, "epsilon 1e-7": tiny}
        measured = {
            arm: [
                of(accuracy=(value if i == 0 else best,) * seeds)
                for i in range(len(config.factors))
            ]
            for arm, value in smallest.items()
        }
        if one is not None:
            arm, value = one
            measured[arm][0][4]["accuracy"] = value
        return n5.analyse(measured, config).holds

    assert holds()
    assert not holds(one=("epsilon 1e-3", 9.0))
    assert not holds(one=("epsilon 1e-3", 85.5))
    assert not holds(best=87.5)
