"""N1: what it measures, and what just meets its criterion or just does not."""

import keras
import numpy as np

from experiments import n1_small_batches as n1
from tests.experiments.measured import of


def test_logits_in_batches_are_those_of_training_and_change_no_statistic():
    model = n1.network(1, width=4, norm={})
    images = np.random.default_rng(0).integers(0, 255, (6, 28, 28, 1)).astype("uint8")
    before = [v.numpy() for v in model.variables]
    logits = n1.logits_in_batches(model, images, 3)
    assert all(map(np.array_equal, before, [v.numpy() for v in model.variables]))
    x = images.reshape(6, 784) / np.float64(255)
    kernels = [v.numpy() for v in model.trainable_variables if "kernel" in v.name]
    for kernel in kernels[:-1]:
        z = (x @ kernel).reshape(2, 3, -1)
        z = (z - z.mean(1, keepdims=True)) / np.sqrt(z.var(1, keepdims=True) + 1e-3)
        x = np.maximum(z, 0).reshape(6, -1)
    np.testing.assert_allclose(logits, x @ kernels[-1], atol=1e-4)


def test_the_arms_start_from_the_same_weights():
    built = [n1.network(3, width=4, norm=norm) for norm in n1.ARMS.values()]
    kernels = [
        [la.kernel.numpy() for la in m.layers if isinstance(la, keras.layers.Dense)]
        for m in built
    ]
    for other in kernels[1:]:
        assert all(map(np.array_equal, kernels[0], other))


def test_criterion_of_n1():
    config = n1.Config()
    seeds = len(config.seeds)

    def holds(none=60.0, norm=(50.0, 79.0), renorm=(70.0, 82.0), large=0.5, one=None):
        def arm(*values):
            sizes = [of(**{k: (v,) * seeds for k in n1.KINDS}) for v in values]
            return [*sizes, *[sizes[-1]] * 2]

        measured = {
            "batch_sizes": config.batch_sizes,
            "ghosts": config.ghosts,
            "none": [*arm(none, 80.0), of(inference=(86.0,) * seeds)],
            "batch norm": [*arm(*norm), of(**{k: (87.0,) * seeds for k in n1.KINDS})],
            "renorm": [
                *arm(*renorm),
                of(**{k: (87.0 + large,) * seeds for k in n1.KINDS}),
            ],
            "ghost": [of(inference=(80.0,) * 3)] * 4,
        }
        if one is not None:
            arm_name, size, value = one
            measured[arm_name][size][4]["inference"] = value
        return n1.analyse(measured, config).holds

    assert holds()
    assert not holds(one=("none", 0, 49.0))
    assert not holds(one=("renorm", 0, 49.0))
    assert not holds(one=("renorm", 1, 78.0))
    assert not holds(large=1.1)
    assert not holds(large=-1.1)
