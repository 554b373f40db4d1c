"""What corresponds in a model and one made of its configuration: layers, weights.

The path of a weight says it: the layer's place in the model, and the weight's name in
the layer. The order of a layer's weights says less. It changes when a layer that is
trained is quantized, and the names of layers may be given anew.
"""

import tempfile
from collections import Counter
from typing import Any

import keras
from keras import ops

from kerasnorm._keras import all_layers, become, set_path
from kerasnorm.transforms._layers import DROPOUTS, NORMALIZATIONS

Pairs = list[tuple[keras.layers.Layer, keras.layers.Layer]]
Weights = list[tuple[keras.Variable, keras.Variable]]


def paired_layers(old: keras.layers.Layer, new: keras.layers.Layer) -> Pairs:
    """Return both layers and all inside of them, in pairs."""
    olds, news = ([layer, *all_layers(layer)] for layer in (old, new))
    if len(olds) != len(news):
        raise ValueError(
            f"The layers of {old.name!r} must each belong to one model, though it may "
            "use them more than once, and be part of its configuration. Received: "
            f"{len(olds) - 1} layers, of which the configuration makes "
            f"{len(news) - 1}. A layer in a model inside and outside of it counts "
            "twice; a layer that is an attribute alone is not in it."
        )
    return list(zip(olds, news, strict=True))


def built_as(made: keras.layers.Layer, layer: keras.layers.Layer) -> keras.layers.Layer:
    """Return a layer that was just made, with the policy and the shapes of another."""
    # Keras's spatial dropout leaves its policy out of its configuration.
    if made.dtype_policy != layer.dtype_policy:
        made.dtype_policy = layer.dtype_policy
    if layer.built and not made.built:
        made.build_from_config(layer.get_build_config())
    return made


def restore_class(theirs: keras.layers.Layer, ours: keras.layers.Layer) -> None:
    """Give a layer the class of the one that it was made after.

    A custom layer makes Keras's layers inside of itself, which `convert` has replaced.
    """
    kind = type(theirs)
    if kind is not type(ours) and kind in (*NORMALIZATIONS, *DROPOUTS):
        become(ours, built_as(kind.from_config(theirs.get_config()), theirs))


def paired_weights(old: keras.layers.Layer, new: keras.layers.Layer) -> Weights:
    """Return the weights of two layers, but not of layers inside of them, in pairs."""
    olds, news = map(_own_weights, (old, new))
    differences = [
        f"{name} {_shape(olds, key)} and {_shape(news, key)}"
        for key in sorted(olds.keys() | news.keys())
        for name in key[:1]
        if _shape(olds, key) != _shape(news, key)
    ]
    if differences:
        modes = {getattr(la, "quantization_mode", None) for la in (old, new)}
        raise ValueError(
            f"The layer {old.path or old.name!r} must have the same weights if it is "
            f"made again of its configuration. Received: {', '.join(differences)}. "
            + (
                "Give its class a `get_config` with all that the weights depend on."
                if len(modes) == 1
                else "Its model does not say that it is quantized: quantize afterwards."
            )
        )
    return [(olds[key], news[key]) for key in olds]


def copy_state(theirs: keras.layers.Layer, ours: keras.layers.Layer) -> None:
    """Copy what one layer has learnt into another of the same kind.

    A saved file holds that: a Normalization's statistics, a lookup's vocabulary. It
    merges the weights of LoRA, so the weights are copied one by one as well.
    """
    pairs = paired_weights(theirs, ours)
    store: dict[str, Any] = {}
    theirs.save_own_variables(store)
    if store:
        ours.load_own_variables({k: ops.convert_to_numpy(v) for k, v in store.items()})
    if hasattr(theirs, "save_assets"):
        with tempfile.TemporaryDirectory() as directory:
            theirs.save_assets(directory)
            ours.load_assets(directory)
    for old, new in pairs:
        assign_copy(new, old)
        new.trainable = old.trainable
        set_path(new, old.path)


def assign_copy(variable: Any, other: Any) -> None:
    """Assign the value of a variable to another one."""
    # JAX lets two variables share an array, which the training of one then frees.
    variable.assign(ops.copy(other.value))


def _own_weights(layer: keras.layers.Layer) -> dict[tuple[str, int], keras.Variable]:
    """Return the weights by name, and number where there are several of a name."""
    inner = {id(w) for la in all_layers(layer) for w in la.weights}
    counts: Counter[str] = Counter()
    weights: dict[tuple[str, int], keras.Variable] = {}
    for weight in layer.weights:
        if id(weight) not in inner:
            weights[weight.name, counts[weight.name]] = weight
            counts[weight.name] += 1
    return weights


def _shape(weights: dict[tuple[str, int], keras.Variable], key: Any) -> str:
    return str(tuple(weights[key].shape)) if key in weights else "none"
