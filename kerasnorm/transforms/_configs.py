"""Models as their configurations: the way from a model to one that is made alike."""

from collections.abc import Callable
from typing import Any

import keras

Config = dict[str, Any]


def check_is_functional(model: Any) -> None:
    """Refuse what is no Sequential or functional model."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a Keras model. Received: model={model!r}.")
    if not (isinstance(model, keras.Sequential) or hasattr(model, "operations")):
        raise ValueError(
            "`model` must be a Sequential or functional model. Received: "
            f"{type(model).__name__} {model.name!r}, a subclassed one, whose layers "
            "only its own code can replace."
        )


def remade(model: keras.Model, edit: Callable[[Config], Config]) -> keras.Model:
    """A model made of the configuration of `model` as `edit` changes it.

    It is neither compiled nor does it have the weights of `model`.
    """
    config = edit(keras.saving.serialize_keras_object(model))
    own_classes = {
        kind.__name__: kind
        for kind in map(type, all_layers(model))
        if not kind.__module__.startswith("keras.")
    }
    # What is in memory already is as safe as its owner.
    return keras.saving.deserialize_keras_object(
        without_compilation(config), custom_objects=own_classes, safe_mode=False
    )


def all_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Every layer of a model, those inside of other layers and models too."""
    return model._flatten_layers(include_self=False)


def without_compilation(config: Any) -> Any:
    """The configuration without what `compile` was told, of nested models too."""
    return map_objects(
        config,
        lambda entry: {k: v for k, v in entry.items() if k != "compile_config"},
    )


def map_objects(config: Any, change: Callable[[Config], Config]) -> Any:
    """Change every serialized object in a configuration, the innermost first."""
    if isinstance(config, (list, tuple)):
        return type(config)(map_objects(value, change) for value in config)
    if not isinstance(config, dict):
        return config
    config = {key: map_objects(value, change) for key, value in config.items()}
    return change(config) if {"class_name", "config"} <= set(config) else config


def replaced(entry: Config, layer: keras.layers.Layer) -> Config:
    """The entry of a layer with another layer in its place in the graph."""
    return {**entry, **keras.saving.serialize_keras_object(layer)}
