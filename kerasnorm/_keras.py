"""What kerasnorm takes from inside of Keras: one function each.

`tests/kerasnorm/test_keras.py` says what each of them relies on.
"""

import inspect
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import keras
from keras.src import backend
from keras.src.backend.common import global_state
from keras.src.layers.layer import CallContext


def all_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Return every layer inside of a model or layer, however deep, each once.

    The public `layers` are those of a model's first level, and a layer has none.
    """
    layers: list[keras.layers.Layer] = layer._flatten_layers(include_self=False)
    return layers


def compile_arguments(model: keras.Model) -> dict[str, Any]:
    """Return what a model was compiled with, as it was given.

    The public `get_compile_config` serializes it. A function or class that is not
    registered cannot be made of that again.
    """
    return dict(model._compile_config.config)


def trained_variables(optimizer: keras.Optimizer) -> list[keras.Variable]:
    """Return the variables that an optimizer was built for; none before.

    The public `variables` are the optimizer's own.
    """
    return list(optimizer._trainable_variables)


def wrapped_function(
    metric: keras.metrics.MeanMetricWrapper,
) -> tuple[Any, dict[str, Any]]:
    """Return the function of a metric and its arguments, as they were given."""
    return metric._fn, dict(metric._fn_kwargs)


def set_path(variable: keras.Variable, path: str) -> None:
    """Give a variable a path, by which some optimizers choose how to train it.

    The public `path` is of the name scopes in which the variable was made.
    """
    variable._path = path


AVERAGES = "_model_variables_moving_average"
"""Where an optimizer with `use_ema` has the averages of the variables."""


def slots(
    optimizer: keras.Optimizer,
) -> dict[tuple[str, int | None], keras.Variable]:
    """Return an optimizer's own variables by attribute and `id` of what they are of.

    Each is an attribute, with `None` as the `id`, or stands in a list at the place of
    the variable that it belongs to. The public `variables` have neither.
    """
    trained = trained_variables(optimizer)
    own = {id(v) for v in optimizer._variables}
    found: dict[tuple[str, int | None], keras.Variable] = {}
    for attribute, value in vars(optimizer).items():
        if id(value) in own:
            found[attribute, None] = value
        elif (
            isinstance(value, list)
            and value is not optimizer._variables
            and len(value) == len(trained)
        ):
            pairs = zip(trained, value, strict=True)
            found |= {(attribute, id(v)): s for v, s in pairs if id(s) in own}
    return found


def decays(optimizer: keras.Optimizer, variable: keras.Variable) -> bool:
    """Return whether weight decay applies to a variable.

    The public `exclude_from_weight_decay` tells it to the optimizer; nothing public
    asks.
    """
    return bool(optimizer._use_weight_decay(variable))


def without_autocast() -> AbstractContextManager[Any]:
    """Return a context in which variables have their own dtype, whatever the policy.

    In a layer of mixed precision they are read in its compute dtype.
    """
    scope: AbstractContextManager[Any] = backend.AutocastScope(None)
    return scope


def in_stateless_scope() -> bool:
    """Return whether a `keras.StatelessScope` takes in what is assigned."""
    return bool(backend.in_stateless_scope())


@contextmanager
def call_in(layer: keras.layers.Layer, training: Any) -> Iterator[None]:
    """Let layers that are given no `training` take this one, as in a call of `layer`.

    Keras before 3.11 does not pass it to a layer whose `call` does not take it. In a
    call of a layer nothing changes.
    """
    name = "current_call_ctx"
    if global_state.get_global_attribute(name) is not None:
        yield
        return
    context = CallContext(entry_layer=layer)
    context.training = training
    global_state.set_global_attribute(name, context)
    try:
        yield
    finally:
        global_state.set_global_attribute(name, None)


def build_at_init(layer: keras.layers.Layer) -> None:
    """Mark a layer as built that has all its variables once it is made.

    A subclass with a `build` of its own is built when it is called. Keras has one
    function for this since 3.11.
    """
    if type(layer).build is keras.layers.Layer.build:
        layer.built = True
        layer._post_build()
        layer._lock_state()


def has_renorm() -> bool:
    """Return whether Keras has batch renormalization: it came with 3.14."""
    return "renorm" in inspect.signature(keras.layers.BatchNormalization).parameters


def producer(tensor: Any) -> tuple[Any, list[Any]]:
    """Return the layer or operation that makes a symbolic tensor, and its inputs."""
    operation, node, _ = tensor._keras_history
    return operation, list(operation._inbound_nodes[node].input_tensors)


def lambda_argument(layer: keras.layers.Lambda, name: str) -> Any:
    """Return an argument of a Lambda layer as it was given.

    Its `get_config` has the bytecode of a function, and `output_shape` is not public.
    """
    return getattr(layer, {"output_shape": "_output_shape"}.get(name, name))


def reason_of(error: Exception) -> str:
    """Return the line in which Keras says why a call of a layer failed.

    Around it are the layer's name, escape sequences, and the arguments.
    """
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    own = [line for line in lines if not line.startswith("Exception encountered when")]
    return (own or lines or [repr(error)])[0]


def why_not_made(error: Exception) -> str:
    """Return the line in which Keras says why an object cannot be deserialized.

    Keras tells it in the message alone, behind the object's whole configuration.
    """
    reason = str(error).rpartition("encountered: ")[2].strip().splitlines()
    return reason[0] if reason else repr(error)
