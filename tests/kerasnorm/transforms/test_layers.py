"""Every public layer is known to `convert`, `fold` and `monte_carlo`."""

import inspect

import keras
import numpy as np
import pytest

import kerasnorm
from kerasnorm.transforms._layers import COUNTERPARTS, DROPOUTS
from kerasnorm.transforms.monte_carlo import draw_masks

# A layer that one of them leaves alone stands here with the reason.
EXEMPT: dict[str, dict[str, str]] = {"convert": {}, "fold": {}, "monte_carlo": {}}
PUBLIC = {
    value.__name__: value
    for value in (getattr(kerasnorm, name) for name in kerasnorm.__all__)
    if inspect.isclass(value) and issubclass(value, keras.layers.Layer)
}
X = np.random.default_rng(0).normal(1, 2, (8, 4, 4, 3)).astype("float32")


def layers_for(function):
    known = {n: layer for n, layer in PUBLIC.items() if n not in EXEMPT[function]}
    return pytest.mark.parametrize("layer_class", known.values(), ids=list(known))


def model_of(layer_class):
    takes_rate = "rate" in inspect.signature(layer_class).parameters
    layer = layer_class(*((0.5,) if takes_rate else ()), name="it")
    # Keras before 3.14 has no model without a layer, and `fold` takes the first.
    linear = keras.layers.Activation("linear")
    return keras.Sequential([keras.Input(X.shape[1:]), layer, linear])


def draws(layer_class):
    model = model_of(layer_class)
    first, second = (keras.ops.convert_to_numpy(model(X, training=True)) for _ in "ab")
    return not np.array_equal(first, second)


@layers_for("convert")
def test_convert_goes_to_keras_and_back(layer_class):
    theirs = kerasnorm.convert(model_of(layer_class), to="keras")
    assert type(theirs.layers[0]) in COUNTERPARTS
    assert type(kerasnorm.convert(theirs).layers[0]) is layer_class


@layers_for("fold")
def test_fold_leaves_none_behind(layer_class):
    lines = []
    folded = kerasnorm.fold(model_of(layer_class), lines.append)
    assert [line.partition(":")[0] for line in lines] == ["it"]
    assert layer_class not in map(type, folded.layers)


@layers_for("monte_carlo")
def test_monte_carlo_draws_where_training_does(layer_class):
    """`draw_masks` is its core, which needs no compilation."""
    if draws(layer_class):
        model = model_of(layer_class)
        first, second = (
            draw_masks(model, X, keras.ops.convert_to_tensor(seed), samples=1)["mean"]
            for seed in (1, 2)
        )
        assert not np.array_equal(*map(keras.ops.convert_to_numpy, (first, second)))


@pytest.mark.parametrize(
    "layer_class",
    [la for la in DROPOUTS if la in COUNTERPARTS],
    ids=lambda layer_class: layer_class.__name__,
)
def test_monte_carlo_refuses_keras_own(layer_class):
    shape = {"1D": (4, 3), "3D": (4, 4, 4, 3)}.get(layer_class.__name__[-2:], (4, 4, 3))
    theirs = keras.Sequential([keras.Input(shape), layer_class(0.5, name="theirs")])
    with pytest.raises(ValueError, match=f"the {layer_class.__name__} 'theirs'"):
        kerasnorm.monte_carlo(theirs, np.ones((2, *shape), "float32"))
