"""KerasHub's models: `make test-kerashub`."""

import keras
import numpy as np
import pytest

import kerasnorm

pytest.importorskip("keras_hub")

from tests.kerasnorm.transforms import kerashub

pytestmark = [
    pytest.mark.slow,
    # Keras warns of KerasHub's layers and models, whatever is done with them.
    pytest.mark.filterwarnings("ignore:`shuffle=True` was passed"),
    pytest.mark.filterwarnings("ignore:`compile.* was not called as part"),
    pytest.mark.filterwarnings("ignore:`build"),
    pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask"),
]


@pytest.mark.parametrize("name", kerashub.ZOO)
def test_a_model_is_converted_trained_drawn_and_folded(name):
    measured = kerashub.measure(name)
    assert measured.inference < 1e-5
    assert measured.training < 1e-4
    assert measured.fold_error < 1e-5
    drops = "Dropout" in measured.replaced and name not in ("MobileNetV5", "DeepLabV3")
    assert measured.monte_carlo == ("yes" if drops else "no dropout")


def test_a_task_stays_what_it_is_and_goes_on_training():
    model = kerashub.randomised_model(kerashub.ZOO["ResNet"]())
    x, y = kerashub.inputs_of(model), np.arange(4) % 3
    model.compile(
        keras.optimizers.SGD(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=True,
    )
    ours = kerasnorm.convert(model)
    assert type(ours) is type(model)
    assert type(ours.backbone) is type(model.backbone)
    assert any(isinstance(la, kerasnorm.KBatchNorm) for la in ours.backbone.layers)
    ours.fit(x, y, verbose=0)
    kerasnorm.recalibrate(ours, x, verbose=0)
    monitor = kerasnorm.ShiftMonitor(x, tolerance=100.0)
    ours.fit(x, y, verbose=0, callbacks=[monitor])
    assert len(monitor.history) == 13


@pytest.mark.parametrize("name", ["BERT", "HGNetV2"])
def test_files(name, tmp_path):
    theirs = kerashub.randomised_model(kerashub.ZOO[name]())
    x = kerashub.inputs_of(theirs)
    expected = kerashub.outputs(theirs, x)
    ours = kerasnorm.convert(theirs)
    for model in (theirs, ours):
        model.save(tmp_path / "model.keras")
        again = kerasnorm.load_model(tmp_path / "model.keras")
        assert kerashub.kinds(again) == kerashub.kinds(ours)
        assert kerashub.distance(kerashub.outputs(again, x), expected) < 1e-5
        model.save_weights(tmp_path / "model.weights.h5")
        for other in (theirs, ours):
            kerasnorm.load_weights(other, tmp_path / "model.weights.h5")
            assert kerashub.distance(kerashub.outputs(other, x), expected) < 1e-5


def test_a_backbone_in_a_model_of_ones_own():
    backbone = kerashub.efficientnet(["v1"] * 3, [0.25] * 3)
    inputs = keras.Input(kerashub.IMAGE)
    x = keras.layers.GlobalAveragePooling2D()(backbone(inputs))
    model = kerashub.randomised_model(keras.Model(inputs, keras.layers.Dense(2)(x)))
    x = kerashub.inputs_of(model)
    ours = kerasnorm.convert(model)
    error = kerashub.distance(kerashub.outputs(ours, x), kerashub.outputs(model, x))
    assert error < 1e-5
    norms = [la for la in kerashub.all_layers(ours) if "KBatchNorm" in str(type(la))]
    assert len(norms) == 13
    back = kerasnorm.convert(ours, to="keras")
    assert len(kerashub.all_layers(back)) == len(kerashub.all_layers(ours))
