"""A new model like another one, of its class where that can be, else of its graph."""

from collections import Counter
from typing import Any

import keras

from kerasnorm._keras import all_layers, has_graph, runs_its_graph
from kerasnorm.transforms._configs import Config, graph_of, is_made_of_graph, remade
from kerasnorm.transforms._pairs import (
    Pairs,
    copy_state,
    paired_layers,
    paired_weights,
    restore_class,
)


def paired_with_new(model: keras.Model) -> Pairs:
    """Make a model like `model`; return the layers of both in pairs, these two first.

    A class with a constructor of its own has a configuration of its own, which may lack
    something. Then the new model is made of the graph alone.

    Raises:
        ValueError: If it can be made of neither.
    """
    try:
        pairs = paired_layers(model, remade(model))
        for pair in _made_by_constructors(pairs):
            _check_are_alike(*pair)
        return pairs
    except ValueError:
        if is_all_made_of_graphs(model):
            raise
    graph = model if is_made_of_graph(model) else graph_of(model)
    return _paired_graphs(model, remade(graph, lambda config: _graph_config(graph)))


def copy_of(model: keras.Model) -> keras.Model:
    """Return a model like `model` that has learnt the same."""
    pairs = paired_with_new(model)
    for theirs, ours in pairs:
        ours.name = theirs.name
        restore_class(theirs, ours)
        copy_state(theirs, ours)
    return pairs[0][1]


def custom_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers of one graph alone whose classes are not of Keras."""
    counts = Counter(layer for each in _graphs(model) for layer in each.layers)
    return [
        layer
        for layer, count in counts.items()
        if count == 1
        and not has_graph(layer)
        and not type(layer).__module__.startswith(("keras.", "kerasnorm."))
    ]


def is_all_made_of_graphs(model: keras.Model) -> bool:
    """Return whether the configurations of a model and all models in it are graphs."""
    return all(map(is_made_of_graph, filter(has_graph, (model, *all_layers(model)))))


def _graphs(model: keras.Model) -> list[keras.Model]:
    """Return a model and the models in its graph, however deep, each once."""
    inner = [g for la in model.layers if runs_its_graph(la) for g in _graphs(la)]
    return list(dict.fromkeys([model, *inner]))


def _graph_config(model: keras.Model) -> Config:
    """Return a serialized model, with the graphs of all models in it."""
    if not is_made_of_graph(model):
        model = graph_of(model)
    config: Config = keras.saving.serialize_keras_object(model)
    layers = {layer.name: layer for layer in model.layers}
    for entry in config["config"]["layers"]:
        layer = layers.get(entry["config"].get("name"))
        if runs_its_graph(layer):
            entry.update(_graph_config(layer))
    return config


def _paired_graphs(old: Any, new: Any) -> Pairs:
    """Return the layers of two models by their names in the graph, in pairs."""
    if not runs_its_graph(old):
        return paired_layers(old, new)
    by_name = {layer.name: layer for layer in new.layers}
    pairs = [(old, new)]
    for layer in old.layers:
        pairs += _paired_graphs(layer, by_name[layer.name])
    return pairs


def _made_by_constructors(pairs: Pairs) -> Pairs:
    """Return the pairs of layers in models that are not made of their graphs."""
    inside = {
        id(layer)
        for model, _ in pairs
        if has_graph(model) and not is_made_of_graph(model)
        for layer in all_layers(model)
    }
    return [pair for pair in pairs if id(pair[0]) in inside]


def _check_are_alike(old: keras.layers.Layer, new: keras.layers.Layer) -> None:
    """Refuse a layer that the configuration of its model has made another."""
    # Where `convert` has replaced a layer, the classes differ. Its model is not known
    # to be another by that.
    if type(old) is not type(new) or has_graph(old):
        return
    configs = [_without_names(_config(layer)) for layer in (old, new)]
    if None not in configs and configs[0] != configs[1]:
        raise ValueError(
            f"The layer {old.path or old.name!r} must be the same if its model is made "
            "again of its configuration. Received: another one. Give the model's class "
            "a `get_config` with all that its layers depend on."
        )
    if old.built:
        paired_weights(old, new)


def _config(layer: keras.layers.Layer) -> Any:
    """Return the configuration of a layer, or `None` if it has none."""
    try:
        return keras.saving.serialize_keras_object(layer)["config"]
    except (NotImplementedError, TypeError):
        return None


def _without_names(config: Any) -> Any:
    """Return a configuration without what is another one in every layer."""
    if isinstance(config, (list, tuple)):
        return [_without_names(value) for value in config]
    if not isinstance(config, dict):
        return config
    own = ("name", "seed", "shared_object_id", "trainable")
    return {key: _without_names(v) for key, v in config.items() if key not in own}
