"""N4: what it measures, and what just meets its criterion or just does not."""

import keras
import numpy as np
import pytest

from experiments import n4_noise as n4
from experiments.data import Split


def test_the_noise_moves_a_unit_as_a_whole_and_anew_at_every_call():
    layer = n4.ShiftingNoise(seed=1)
    x = np.random.default_rng(0).normal(size=(4000, 50)).astype("float32")
    first, second = (np.asarray(layer(x, training=True)) for _ in range(2))
    assert np.array_equal(layer(x, training=False), x)
    means, widths = first.mean(0), first.std(0) / x.std(0)
    assert 0.4 < abs(means).max() < n4.MEAN + 0.1
    assert 0.98 < widths.min() < 1.1 < widths.max() < n4.STDDEV + 0.05
    assert abs(means - second.mean(0)).max() > 0.2


def test_the_probe_measures_the_change_of_gradients_and_leaves_the_model_alone():
    """A step a hundred times as small changes the gradient about that much less."""
    random = np.random.default_rng(0)
    images = random.integers(0, 255, (20, 28, 28, 1)).astype("uint8")
    part = Split(images, np.arange(20).astype("int32") % 10)
    keras.utils.set_random_seed(0)
    model = n4.network(1, width=4, stddev=0.5, arm="noisy")
    before = [v.numpy() for v in model.variables]
    probe = n4.Probe(model, part)
    units, found = probe.look(rate=0.1)
    assert units.shape == (20, 4)
    assert all(map(np.array_equal, before, [v.numpy() for v in model.variables]))
    _, still = probe.look(rate=0.0)
    assert still["along a step"] == 0
    assert still["as layers before move"] == 0
    assert found["as layers before move"] > 0
    _, smaller = probe.look(rate=0.001)
    ratio = found["along a step"] / smaller["along a step"]
    assert ratio == pytest.approx(100, rel=0.5)


def test_criterion_of_n4():
    config = n4.Config()

    def holds(one=None):
        rows = {
            "without": (60.0, 0.1, 0.5),
            "with": (80.0, 0.05, 0.4),
            "noisy": (75.0, 0.2, 0.4),
        }
        names = ("accuracy", "shift", "change along a step")
        measured = {
            arm: [
                dict.fromkeys(n4.NUMBERS, 1.0) | dict(zip(names, row, strict=True))
                for _ in config.seeds
            ]
            for arm, row in rows.items()
        }
        if one is not None:
            arm, name, value = one
            measured[arm][4][name] = value
        return n4.analyse(measured, config).holds

    assert holds()
    assert not holds(("noisy", "accuracy", 59.0))
    assert not holds(("noisy", "shift", 0.09))
    assert not holds(("with", "change along a step", 0.6))
