"""The networks whose training steps are timed."""

import keras
import numpy as np
import pytest

from benchmarks import networks
from kerasnorm import KBatchNorm, KDropout

BUILTIN = {
    KBatchNorm: keras.layers.BatchNormalization,
    KDropout: keras.layers.Dropout,
}


@pytest.mark.parametrize("network", networks.NETWORKS)
def test_the_three_variants_of_a_network(network):
    built = {variant: networks.build(network, variant) for variant in networks.VARIANTS}
    kinds = {name: [type(v) for v in m.layers] for name, m in built.items()}
    ours = kinds["kerasnorm"]
    assert KBatchNorm in ours
    assert (KDropout in ours) == (network != "resnet20")
    assert kinds["keras"] == [BUILTIN.get(kind, kind) for kind in ours]
    assert kinds["neither"] == [kind for kind in ours if kind not in BUILTIN]


def test_the_variant_with_kerass_layers_predicts_the_same():
    ours, builtin, folded = (
        networks.build("cnn", name) for name in ("kerasnorm", "keras", "folded")
    )
    images = np.random.default_rng(0).uniform(0, 255, (4, 28, 28, 1))
    expected = ours.predict(images, verbose=0)
    for other in (builtin, folded):
        np.testing.assert_allclose(
            other.predict(images, verbose=0), expected, atol=1e-4
        )


def test_resnet20_has_the_parameters_of_the_paper():
    """He et al. 2015, table 6: 0.27 million; 19 convolutions and a dense layer."""
    model = networks.build("resnet20", "neither")
    weighted = [v for v in model.layers if v.weights]
    kernels = [v for v in weighted if v.weights[0].shape[0] == 3]
    assert len(kernels) == 19
    assert round(model.count_params() / 1e6, 2) == 0.27


@pytest.mark.parametrize("variant", networks.VARIANTS)
def test_the_training_step_trains(variant):
    step = networks.training_step("mlp", variant)
    first, *_, last = (float(step()["loss"]) for _ in range(6))
    assert last < first


def test_the_share_that_is_added():
    medians = {"kerasnorm": 7, "keras": 9, "neither": 5}
    times = {name: {"median": median} for name, median in medians.items()}
    assert networks.added_share(times) == 0.5
