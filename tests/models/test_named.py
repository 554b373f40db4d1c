"""Models by name: what is found, what is refused."""

from pathlib import Path

import keras
import numpy as np
import pytest

import models

NETS = """
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar
import keras

@dataclass
class Sizes:
    default: "ClassVar[int]" = 4
    width: int = 4

def small(input_shape, num_classes, width=4, scale=1.0):
    return keras.Sequential([
        keras.Input(input_shape), keras.layers.Rescaling(scale),
        keras.layers.Flatten(), keras.layers.Dense(width),
        keras.layers.Dense(num_classes)])

def open_size(input_shape, num_classes):
    return keras.Sequential([
        keras.layers.Flatten(), keras.layers.Dense(num_classes)])

def soft(input_shape, num_classes):
    return keras.Sequential([
        keras.Input(input_shape), keras.layers.Flatten(),
        keras.layers.Dense(num_classes, activation="softmax")])

def five(input_shape, num_classes):
    return small(input_shape, 5)

def three(input_shape, num_classes):
    return 3

class Own(keras.Model):
    def call(self, x):
        return x

def own(input_shape, num_classes):
    return Own()

def fails(input_shape, num_classes):
    return unknown
"""
SHAPE = (8, 8, 3)


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nets") / "nets.py"
    path.write_text(NETS)
    path.with_name("broken.py").write_text("import no_such_module")
    return path


def test_a_function_of_a_file(nets: Path) -> None:
    model = models.build(f"{nets}:small", SHAPE, 7, width=6, scale=0.5)
    assert model.output_shape == (None, 7)
    assert [la.units for la in model.layers[-2:]] == [6, 7]
    assert models.arguments(models.find(f"{nets}:small")) == {"width", "scale"}
    assert models.source(f"{nets}:small") == nets
    assert models.build(f"{nets}:open_size", SHAPE, 7).input_shape == (None, *SHAPE)


def test_a_function_of_a_module() -> None:
    assert models.find("models.cnn:cnn") is models.REGISTRY["cnn"]
    source = models.source("models.cnn:cnn")
    assert source is not None
    assert source.name == "cnn.py"
    assert models.source("cnn") is models.source("applications:VGG16") is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rnn", "`name` must be one of cnn, mlp, .* name='rnn'"),
        ("applications:Nothing", "must name one of .*ResNet50.* Received: 'Nothing'"),
        ("applications:layers", "must name one of"),
        ("{}:nothing", "must have a function 'nothing'"),
        ("{}:NETS", "must have a function 'NETS'"),
        ("{}:three", "must return a Keras model. Received: int"),
        ("{}:own", "a Sequential or functional model. Received: Own, a subclassed"),
        ("{}:soft", "to logits. Received: .* is a softmax. Leave the activation"),
        ("{}:five", r"logits \(None, 7\). Received: .* to \(None, 5\)"),
        ("{}:fails", "makes no model: NameError: name 'unknown' is not defined"),
        ("{}x.py:small", "cannot be imported: FileNotFoundError"),
        ("{.parent}/broken.py:f", "broken.py cannot be imported: ModuleNotFoundError"),
        ("no.such:f", "no.such cannot be imported: ModuleNotFoundError"),
        ("models.cnn:itertools", "must have a function 'itertools'"),
    ],
)
def test_what_makes_no_model(nets: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        models.build(name.format(nets), SHAPE, 7)
    assert "\n" not in str(caught.value)


def test_an_argument_that_the_function_lacks(nets: Path) -> None:
    message = "`depth` must be an argument of .*:small. It takes: scale, width."
    with pytest.raises(ValueError, match=message):
        models.build(f"{nets}:small", SHAPE, 7, depth=2)
    with pytest.raises(ValueError, match=r"`beta` .* alpha, depth_multiplier, dropout"):
        models.build("applications:MobileNet", SHAPE, 7, beta=2)


@pytest.mark.parametrize(
    ("name", "module", "channels"),
    [
        ("VGG16", "vgg16", 3),
        ("MobileNet", "mobilenet", 1),
    ],
)
def test_an_application_prepares_its_images(
    name: str, module: str, channels: int
) -> None:
    """Against `preprocess_input` of the architecture, for values of two scales."""
    keras.utils.set_random_seed(3)
    shape = (32, 32, channels)
    model = models.build(f"applications:{name}", shape, 3)
    assert (model.input_shape, model.output_shape) == ((None, *shape), (None, 3))
    weights = model.get_weights()
    same = models.build(f"applications:{name}", shape, 3, scale=1 / 65535)
    same.set_weights(weights)
    make = getattr(keras.applications, name)
    theirs = make(
        weights=None, input_shape=(32, 32, 3), classes=3, classifier_activation=None
    )
    theirs.set_weights(weights)
    images = np.random.default_rng(0).integers(0, 256, (2, *shape)).astype("float32")
    colours = np.broadcast_to(images, (2, 32, 32, 3)).copy()
    prepared = getattr(keras.applications, module).preprocess_input(colours)
    expected = np.asarray(theirs(prepared))
    np.testing.assert_allclose(model(images), expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(same(images * 257), expected, rtol=1e-3, atol=1e-4)
