"""Models as configurations: how to make one like another, with a change."""

import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import keras

from kerasnorm._keras import (
    all_layers,
    has_graph,
    lambda_argument,
    leave_graphs,
    why_not_made,
    without_configs,
)

Config = dict[str, Any]


def check_has_graph(model: Any) -> None:
    """Refuse what is no Sequential or functional model, whatever its class."""
    check_is_model(model)
    if not has_graph(model):
        raise ValueError(
            "`model` must be a Sequential or functional model. Received: "
            f"{type(model).__name__} {model.name!r}, a subclassed one, whose layers "
            "only its own code can replace."
        )
    for inner in (model, *all_layers(model)):
        if has_graph(inner) and is_made_of_graph(inner):
            _check_names_differ(inner)


def is_made_of_graph(model: keras.Model) -> bool:
    """Return whether the configuration of a model is its graph.

    A class with a constructor of its own has another one.
    """
    try:
        return "layers" in model.get_config()
    except NotImplementedError:
        return False


def _check_names_differ(model: keras.Model) -> None:
    counts = Counter(layer.name for layer in model.layers)
    ((name, count),) = counts.most_common(1) or [("", 0)]
    if count > 1:
        raise ValueError(
            f"The layers of {model.name!r} must have different names, which its "
            f"configuration tells them by. Received: {count} with the name {name!r}."
        )


def check_is_model(model: Any) -> None:
    """Refuse what is no Keras model."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a Keras model. Received: model={model!r}.")


def graph_of(model: keras.Model) -> keras.Model:
    """Return the graph of a functional model, of any class, as a model of its layers.

    It is no Sequential model, and has nothing of the class.
    """
    return keras.Model(model.input, model.output, name=model.name)


def remade(
    model: keras.Model,
    edit: Callable[[Config], Config] = lambda config: config,
    taken: Mapping[str, keras.layers.Layer] = MappingProxyType({}),
) -> keras.Model:
    """Make a model from the configuration of `model` as `edit` changes it.

    The new model is not compiled and does not have the weights of `model`.

    Args:
        model: The model.
        edit: Takes the configuration and returns another one.
        taken: Layers by the names of layers of the graph. They leave where they were
            and stand in their places, instead of layers made anew.

    Raises:
        ValueError: If a part of the model cannot be made of its configuration.
    """
    objects = {**_own_objects(model), _NAMED: _Named, _TAKEN: _taker(taken)}
    functions = _functions_of_lambdas(model)

    def prepare(entry: Config) -> Config:
        entry = {k: v for k, v in entry.items() if k != "compile_config"}
        if "build_input_shape" in entry["config"]:
            entry["config"]["layers"] = [
                _built_by_call(each) for each in entry["config"]["layers"]
            ]
        if "inbound_nodes" in entry:
            return _named(_built_by_call(entry))
        if entry["class_name"] == "__lambda__":
            # Made of its bytecode, it would lack the names of its module.
            for name, (code, function) in functions.items():
                if code == entry:
                    objects[name] = function
                    return {**entry, **_reference(name)}
        return entry

    try:
        with without_configs(la for la in model.layers if la.name in taken):
            config = keras.saving.serialize_keras_object(model)
    except NotImplementedError as error:
        raise _not_made(model, error) from error
    config = edit(config)
    for entry in config["config"]["layers"] if taken else ():
        if entry["name"] in taken:
            entry.update(_reference_to_layer(entry["name"]))
    try:
        # Bytecode of a model that is in memory already is no less safe than the model.
        return keras.saving.deserialize_keras_object(
            map_objects(config, prepare), custom_objects=objects, safe_mode=False
        )
    except Exception as error:  # of any class: a `from_config` is its layer's own
        raise _not_made(model, error) from error


def _not_made(model: keras.Model, error: Exception) -> ValueError:
    return ValueError(
        f"`model` must be made of parts that Keras can make again. Received: "
        f"{model.name!r}, where it says: {why_not_made(error)} Give custom classes a "
        "`get_config`, and register them and custom functions with "
        "`keras.saving.register_keras_serializable`."
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
    """Return the entry of a layer with another layer at its place in the graph."""
    return {**entry, **keras.saving.serialize_keras_object(layer)}


class _Named:
    """Makes a layer that has the name of its place in the graph.

    A custom layer's own configuration may leave its name out.
    """

    @staticmethod
    def from_config(config: Config) -> Any:
        layer = keras.saving.deserialize_keras_object(config["layer"])
        layer.name = config["name"]
        return layer


_NAMED = "kerasnorm>_Named"


_TAKEN = "kerasnorm>_Taken"


def _taker(layers: Mapping[str, keras.layers.Layer]) -> type:
    """Return a class whose configuration is the name of one of the layers."""

    class _Taken:
        @staticmethod
        def from_config(config: Config) -> keras.layers.Layer:
            layer = layers[config["name"]]
            leave_graphs(layer)
            return layer

    return _Taken


def _reference_to_layer(name: str) -> Config:
    return {
        "module": None,
        "class_name": "_Taken",
        "config": {"name": name},
        "registered_name": _TAKEN,
    }


def _built_by_call(entry: Config) -> Config:
    """Return the entry of a layer that is called once it is made.

    Of one without a `build` Keras would warn that it builds nothing.
    """
    return {key: value for key, value in entry.items() if key != "build_config"}


def _named(entry: Config) -> Config:
    """Return the entry of a layer in a graph so that it gets the name of the entry."""
    place = {key: entry[key] for key in ("name", "inbound_nodes")}
    layer = {key: value for key, value in entry.items() if key not in place}
    return {
        **place,
        "module": None,
        "class_name": "_Named",
        "config": {"name": entry["name"], "layer": layer},
        "registered_name": _NAMED,
    }


def _own_objects(model: keras.Model) -> dict[str, Any]:
    """Return the classes and functions, not Keras's own, that the layers use."""
    objects: dict[str, Any] = {}
    for layer in (model, *all_layers(model)):
        for value in (layer, *vars(layer).values()):
            named = value if inspect.isfunction(value) else type(value)
            is_configured = named is value or hasattr(value, "get_config")
            if is_configured and not str(named.__module__).startswith("keras."):
                objects[named.__name__] = named
    return objects


def _functions_of_lambdas(model: keras.Model) -> dict[str, tuple[Config, Any]]:
    """Name each lambda of a Lambda layer; return it serialized and as it is."""
    found: dict[str, tuple[Config, Any]] = {}
    for layer in all_layers(model):
        if isinstance(layer, keras.layers.Lambda):
            for key, value in layer.get_config().items():
                if isinstance(value, dict) and value.get("class_name") == "__lambda__":
                    function = lambda_argument(layer, key)
                    found[f"lambda_{len(found)}"] = (value, function)
    return found


def _reference(name: str) -> Config:
    return {
        "module": None,
        "class_name": "function",
        "config": name,
        "registered_name": name,
    }
