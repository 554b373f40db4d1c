"""Weights that training starts from, and frozen layers."""

from pathlib import Path

import keras
import numpy as np
import pytest

import kerasnorm
from training.config import TrainConfig
from training.data.pipeline import Data, load
from training.errors import UserError
from training.model import made_model
from training.pretrained import head_alone

NETS = """
import keras

def net(input_shape, num_classes, units=6):
    return keras.Sequential([
        keras.Input(input_shape), keras.layers.Flatten(),
        keras.layers.Dense(units, name="first"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Dense(num_classes, name="head")])
"""


@pytest.fixture(scope="module")
def data(few_pictures: Path) -> Data:
    return load(TrainConfig(dataset=f"folder:{few_pictures}"))


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    (tmp_path / "nets.py").write_text(NETS)
    return TrainConfig(model=f"{tmp_path}/nets.py:net")


def saved(directory: Path, classes: int, name: str, units: int = 6) -> keras.Model:
    """Keras's own model with weights of its own, saved under this name."""
    layers = keras.layers
    model = keras.Sequential(
        [
            *(keras.Input((28, 28, 1)), layers.Flatten(), layers.Dense(units)),
            *(layers.BatchNormalization(), layers.Dense(classes)),
        ]
    )
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.1, 1, w.shape) for w in model.weights])
    model.save_weights(directory / name) if "weights" in name else model.save(
        directory / name
    )
    return model


@pytest.mark.parametrize("name", ["a.keras", "a.weights.h5"])
def test_training_starts_from_a_file_of_keras_layers(
    config: TrainConfig, data: Data, tmp_path: Path, name: str
) -> None:
    theirs = saved(tmp_path, 10, name)
    ours = made_model(config.model_copy(update={"weights": tmp_path / name}), data)
    assert isinstance(ours.get_layer("norm"), kerasnorm.KBatchNorm)
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["a.keras", "a.weights.h5"])
def test_the_head_of_other_classes_begins_anew(
    config: TrainConfig,
    data: Data,
    tmp_path: Path,
    name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    theirs = saved(tmp_path, 3, name)
    ours = made_model(config.model_copy(update={"weights": tmp_path / name}), data)
    assert "head begins anew" in capsys.readouterr().out
    *rest, kernel, bias = ours.get_weights()
    assert (kernel.shape, bias.shape) == ((6, 10), (10,))
    for one, other in zip(rest, theirs.get_weights(), strict=False):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("name", "units", "message"),
    [
        ("a.keras", 5, r"weights of \[\(784, 5\), .* for 'first', which has"),
        ("a.weights.h5", 5, "must be a file of what"),
        ("b.keras", 6, "must be an existing .keras file"),
        ("a.h5", 6, "must be an existing"),
    ],
)
def test_a_file_of_another_model(
    config: TrainConfig, data: Data, tmp_path: Path, name: str, units: int, message: str
) -> None:
    saved(tmp_path, 10, "a.weights.h5" if "weights" in name else "a.keras", units)
    with pytest.raises(UserError, match=message) as caught:
        made_model(config.model_copy(update={"weights": tmp_path / name}), data)
    assert "\n" not in str(caught.value)


def test_keras_own_layers_take_the_weights_too(
    config: TrainConfig, data: Data, tmp_path: Path
) -> None:
    theirs = saved(tmp_path, 10, "a.keras")
    options = {"weights": tmp_path / "a.keras", "convert": False}
    ours = made_model(config.model_copy(update=options), data)
    assert type(ours.get_layer("norm")) is keras.layers.BatchNormalization
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_run_that_goes_on_needs_the_file_no_more(
    config: TrainConfig, data: Data, tmp_path: Path
) -> None:
    gone = config.model_copy(update={"weights": tmp_path / "gone.keras"})
    with pytest.raises(UserError, match="must be an existing"):
        made_model(gone, data)
    assert made_model(gone, data, begins=False).built


@pytest.mark.parametrize("content", [b"no zip", b"PK\x05\x06" + bytes(18)])
def test_a_damaged_file_is_one_line(
    config: TrainConfig, data: Data, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "a.keras").write_bytes(content)
    with pytest.raises(UserError, match="must be a whole file") as caught:
        made_model(config.model_copy(update={"weights": tmp_path / "a.keras"}), data)
    assert "\n" not in str(caught.value)


def test_frozen_layers_stay_as_they_are(config: TrainConfig, data: Data) -> None:
    model = made_model(config.model_copy(update={"freeze": "^(first|norm)$"}), data)
    assert {w.path.split("/")[-2] for w in model.trainable_variables} == {"head"}
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = model.get_weights()
    model.train_on_batch(*next(iter(data.batches("train", 16))))
    changed = [
        not np.array_equal(one, other)
        for one, other in zip(before, model.get_weights(), strict=True)
    ]
    assert changed == [*([False] * 6), True, True]


@pytest.mark.parametrize(("pattern", "said"), [("conv", "none"), (".", "all")])
def test_what_freezes_nothing_or_all(
    config: TrainConfig, data: Data, pattern: str, said: str
) -> None:
    message = f"names of some layers, not of {said}. Received: .*first, norm, head"
    with pytest.raises(UserError, match=message):
        made_model(config.model_copy(update={"freeze": pattern}), data)
    with pytest.raises(ValueError, match="must be a regular expression"):
        TrainConfig(freeze="(")


BLOCK = """
import keras

class Block(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.frozen = keras.layers.Dense(4)
        self.norm = keras.layers.BatchNormalization()
    def build(self, shape):
        self.frozen.build(shape)
        self.frozen.trainable = False
        self.norm.build((None, 4))
    def call(self, x, training=None):
        return self.norm(self.frozen(x), training=training)

def net(input_shape, num_classes):
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)], name="inner")
    return keras.Sequential([
        keras.Input(input_shape), keras.layers.Flatten(), Block(name="block"), inner,
        keras.layers.Dense(num_classes, name="head")])
"""


def test_the_head_is_trained_alone_and_then_all_that_was_before(
    config: TrainConfig, data: Data, tmp_path: Path
) -> None:
    (tmp_path / "nets.py").write_text(BLOCK)
    model = made_model(config, data)
    before = [w.path for w in model.trainable_variables]
    with head_alone(model):
        assert {w.path.split("/")[-2] for w in model.trainable_variables} == {"head"}
        # Frozen batch normalization keeps its statistics.
        assert not model.get_layer("block").norm.trainable
    assert [w.path for w in model.trainable_variables] == before
    assert not model.get_layer("block").frozen.trainable


def test_a_frozen_head_cannot_be_trained_alone(config: TrainConfig, data: Data) -> None:
    options = {"freeze": "head", "train_head": 1}
    with pytest.raises(UserError, match=r"`--train-head` needs .* 'head', which is"):
        made_model(config.model_copy(update=options), data)
