"""The networks: equal initial weights in all arms, and bounded norms."""

import keras
import numpy as np
import pytest

from experiments.nets import mlp
from experiments.trainer import Plan, Trainer


def test_arms_start_from_the_same_weights():
    def kernels(**options):
        model = mlp(4, widths=(8, 9), **options)
        return [w.numpy() for w in model.weights if w.name == "kernel"]

    plain = kernels()
    for options in ({"norm": True}, {"rate": 0.5, "input_rate": 0.2}, {"l2": 0.1}):
        for a, b in zip(plain, kernels(**options), strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(plain[0], mlp(5, widths=(8, 9)).get_weights()[0])


def test_the_norms_stay_below_their_bound(data):
    def network(seed):
        return mlp(seed, widths=(16,), max_norm=0.7)

    trainer = Trainer(network, keras.optimizers.SGD(1.0))
    trainer.train_to_end(data.train, Plan(20, 10, 1.0, seed=1, every=20))
    norms = np.linalg.norm(trainer.model.layers[2].kernel.numpy(), axis=0)
    assert norms.max() == pytest.approx(0.7, abs=1e-4)
