"""Other options for layers that a model has: `set_options`."""

from collections.abc import Mapping
from typing import Any

import keras

from kerasnorm._keras import all_layers, become, track_variables
from kerasnorm.transforms._pairs import assign_copy, built_as


def set_options(model: keras.Model, options: Mapping[Any, Mapping[str, Any]]) -> None:
    """Give layers of this package other options, wherever they are in a model.

    Their weights stay; those that an option brings begin as in a new layer. A model
    that was compiled, or a function that was traced, must be made again.

    Args:
        model: Any Keras model, which is changed in place.
        options: Arguments by name, for each class of layers.
    """
    for layer in all_layers(model):
        for kind, changes in options.items():
            if isinstance(layer, kind):
                config = {**layer.get_config(), **changes}
                other = built_as(type(layer).from_config(config), layer)
                before = {weight.name: weight for weight in layer.weights}
                for weight in other.weights:
                    if weight.name in before:
                        assign_copy(weight, before[weight.name])
                become(layer, other)
    track_variables(model)
