"""Models for inference alone, without normalization and dropout: `fold`."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from kerasnorm import _validation, functional
from kerasnorm._keras import all_layers, runs_its_graph, track_variables
from kerasnorm.transforms._configs import (
    Config,
    check_has_graph,
    graph_of,
    is_made_of_graph,
    remade,
    replaced,
)
from kerasnorm.transforms._graph import Graph
from kerasnorm.transforms._layers import DROPOUTS, NORMALIZATIONS, Layers
from kerasnorm.transforms._linear import (
    why_nothing_after,
    why_nothing_before,
    with_input,
    with_output,
)
from kerasnorm.transforms._multiply_add import MultiplyAdd
from kerasnorm.transforms._pairs import copy_state, paired_layers, restore_class
from kerasnorm.transforms._remaking import (
    copy_of,
    custom_layers,
    is_all_made_of_graphs,
)

_REMOVED: Layers = (*DROPOUTS, keras.layers.AlphaDropout)


def fold(
    model: keras.Model, print_fn: Callable[[str], Any] | None = None
) -> keras.Model:
    """Make a model for inference, with no batch normalization and no dropout.

    Batch normalization at inference multiplies and adds (Ioffe & Szegedy 2015,
    Alg. 2, line 11). It becomes part of the kernel and bias of a linear layer, or
    one multiply-add if there is no such layer:

    - the layer before it, if that has no activation and feeds nothing else:
      `Dense`, `Conv1D`, `2D`, `3D` and their transposes, `DepthwiseConv1D`, `2D`,
      `SeparableConv1D`, `2D`;
    - else the layer after it, if that is the only one: `Dense`, and `Conv1D`, `2D`,
      `3D` that do not pad.

    Dropout is left out, Keras's and this package's. What is inside of another layer,
    such as `TimeDistributed` or a custom layer, stays as it is: its code alone says
    what follows what. The predictions are those of `model` but for rounding.

    Args:
        model: Sequential or functional model, which does not change, of Keras's layers
            or ours. It may have models in it.
        print_fn: Called with a line for each layer that is folded, removed or kept,
            which says why; `print`, for example. Defaults to `None`, no report.

    Returns:
        A new model, not compiled; of a class with a constructor of its own, as those of
        KerasHub, it is the graph alone. Its `.keras` file needs `import kerasnorm` if
        there is a multiply-add in it; its SavedModel does not.

    Raises:
        ValueError: If the model is subclassed, has a `call` of its own or is not built,
            if two of its layers have one name, or if a part cannot be made again with
            the same weights.
        TypeError: If an argument is of a wrong type.

    Example:

    >>> import keras, kerasnorm
    >>> model = keras.Sequential([
    ...     keras.Input((8,)), keras.layers.Dense(4, name="dense"),
    ...     kerasnorm.KBatchNorm(name="norm"), keras.layers.ReLU(),
    ...     kerasnorm.KDropout(0.5, name="drop")])
    >>> [type(layer).__name__ for layer in kerasnorm.fold(model, print).layers]
    drop: removed
    norm: folded into dense before it
    ['Dense', 'ReLU']
    """
    check_has_graph(model)
    if print_fn is not None and not callable(print_fn):
        raise _validation.wrong_type("print_fn", "a function of a string", print_fn)
    if not runs_its_graph(model):
        raise ValueError(
            "`model` must do nothing but run its graph. Received: "
            f"{type(model).__name__} {model.name!r}, whose class has a `call` of its "
            "own. Fold a model without it: keras.Model(model.input, model.output)."
        )
    if not _has_inputs(model):
        raise ValueError(
            f"`model` must be built. Received: {model.name!r} without an input shape, "
            "or a Sequential model of several inputs."
        )
    custom: list[keras.layers.Layer] = []
    if not is_all_made_of_graphs(model):
        # Custom layers of such models may lack a configuration of their own.
        model = copy_of(model)
        custom = custom_layers(model)
    return _Folding(model, print_fn or (lambda line: None), custom).result()


class _Folding:
    """The folding of one model, layer by layer, in the order in which they run.

    Args:
        model: The model.
        report: Called with each line.
        custom: Layers that the new model is to take over as they are.
    """

    def __init__(
        self,
        model: keras.Model,
        report: Callable[[str], Any],
        custom: list[keras.layers.Layer],
    ) -> None:
        self._model = model
        self._report = report
        self._custom = custom
        if isinstance(model, keras.Sequential):
            (inputs,), (outputs,) = model.inputs, model.outputs
            model = keras.Model(inputs, outputs, name=model.name)
        elif not is_made_of_graph(model):
            model = graph_of(model)
        self._functional = model
        self._layers = {layer.name: layer for layer in model.layers}
        # An operation such as x + y is no layer, but may stand beside one.
        self._operations = {op.name: op for op in model.operations}
        self._taken = {la.name: la for la in model.layers if la in custom}
        self._weights: dict[str, list[np.ndarray]] = {}

    def result(self) -> keras.Model:
        new = remade(self._functional, self._fold, self._taken)
        for layer in new.layers:
            if layer.name in self._weights:
                layer.set_weights(self._weights[layer.name])
                continue
            if layer.name in self._taken:
                continue
            source = self._layers[layer.name]
            for theirs, ours in paired_layers(source, layer):
                restore_class(theirs, ours)
                copy_state(theirs, ours)
        track_variables(new)
        if isinstance(self._model, keras.Sequential) and len(new.layers) > 1:
            return keras.Sequential(new.layers, name=new.name)
        return new

    def _fold(self, config: Config) -> Config:
        self._graph = Graph(config["config"])
        for name, layer in self._layers.items():
            if runs_its_graph(layer) and _has_inputs(layer):
                self._fold_model(name, layer)
            elif type(layer) in _REMOVED:
                self._fold_dropout(name, layer)
            elif type(layer) not in NORMALIZATIONS:
                self._report_what_stays_inside(layer)
        for name, layer in self._layers.items():
            if type(layer) in NORMALIZATIONS:
                self._fold_normalization(name, layer)
        return config

    def _fold_model(self, name: str, model: keras.Model) -> None:
        def report(line: str) -> None:
            self._report(f"{name}/{line}")

        self._taken[name] = _Folding(model, report, self._custom).result()

    def _fold_dropout(self, name: str, layer: Any) -> None:
        if getattr(layer, "monte_carlo", False):
            self._report(f"{name}: kept, since it draws masks at inference")
        elif getattr(layer, "scale_at", "training") == "inference":
            keep = functional.keep_fraction(layer.current_rate())
            self._weights[name] = [
                ops.convert_to_numpy(keep).astype("float64"),
                np.zeros(()),
            ]
            self._replace(name, MultiplyAdd((), name=name, dtype=layer.dtype_policy))
            self._report(f"{name}: multiply-add, since it scales at inference")
        else:
            self._graph.bypass(name)
            self._report(f"{name}: removed")

    def _fold_normalization(self, name: str, layer: Any) -> None:
        axis = tuple(keras.tree.flatten(layer.axis))
        factor, shift = _factor_and_shift(layer)
        reasons = [self._fold_into_previous(name, axis, factor, shift)]
        if reasons[0] is not None:
            reasons.append(self._fold_into_next(name, axis, factor, shift))
        if None in reasons:
            return
        self._weights[name] = [factor, shift]
        self._replace(name, MultiplyAdd(axis, name=name, dtype=layer.dtype_policy))
        self._report(f"{name}: multiply-add, since {' and '.join(map(str, reasons))}")

    def _fold_into_previous(
        self, name: str, axis: tuple[int, ...], factor: np.ndarray, shift: np.ndarray
    ) -> str | None:
        """Fold and return `None`, or return why not."""
        if not self._graph.is_called_once(name):
            return "it is used more than once"
        previous, *_ = self._graph.input(self._graph.calls(name)[0])
        layer = self._operations[previous]
        reason = self._why_not(why_nothing_after, name, axis, layer)
        if reason is None and len(self._graph.consumers(previous)) > 1:
            reason = f"{previous} before it feeds other layers too"
        if reason is None:
            weights = self._weights_of(previous)
            self._weights[previous] = with_output(layer, weights, factor, shift)
            self._take_up(name, previous)
            self._report(f"{name}: folded into {previous} before it")
        return reason

    def _fold_into_next(
        self, name: str, axis: tuple[int, ...], factor: np.ndarray, shift: np.ndarray
    ) -> str | None:
        """Fold and return `None`, or return why not."""
        consumers = self._graph.consumers(name)
        following = consumers[0] if len(consumers) == 1 else None
        if following is None:
            return "not one layer alone follows it"
        layer = self._operations[following]
        reason = self._why_not(why_nothing_before, name, axis, layer)
        if reason is None:
            weights = self._weights_of(following)
            self._weights[following] = with_input(weights, factor, shift)
            self._take_up(name, following)
            self._report(f"{name}: folded into {following} after it")
        return reason

    def _why_not(
        self,
        rule: Callable[[Any, int, int], str | None],
        name: str,
        axis: tuple[int, ...],
        neighbour: Any,
    ) -> str | None:
        rank = self._layers[name].input_spec.ndim
        if len(axis) > 1:
            return "it normalizes several axes"
        reason = rule(neighbour, axis[0] % rank, rank)
        if reason is not None:
            return reason
        if neighbour.compute_dtype != self._layers[name].compute_dtype:
            return f"{neighbour.name} computes in {neighbour.compute_dtype}"
        if not self._graph.is_called_once(neighbour.name):
            return f"{neighbour.name} is used more than once"
        return None

    def _weights_of(self, name: str) -> list[np.ndarray]:
        return self._weights.get(name) or self._layers[name].get_weights()

    def _take_up(self, name: str, linear: str) -> None:
        self._graph.entries[linear]["config"]["use_bias"] = True
        self._graph.bypass(name)

    def _replace(self, name: str, layer: keras.layers.Layer) -> None:
        entries = self._graph.entries
        entries[name] = replaced(entries[name], layer)
        self._graph.config["layers"] = list(entries.values())

    def _report_what_stays_inside(self, layer: keras.layers.Layer) -> None:
        known: Layers = (*NORMALIZATIONS, *_REMOVED)
        for inner in (layer, *all_layers(layer)):
            if isinstance(inner, known):
                name = inner.path or inner.name
                self._report(f"{name}: kept, since {_whose(inner, layer)}")


def _has_inputs(model: keras.Model) -> bool:
    """Return whether a model knows its inputs; Sequential raises if it does not."""
    return getattr(model, "inputs", None) is not None


def _whose(inner: keras.layers.Layer, layer: keras.layers.Layer) -> str:
    return "it is a subclass" if inner is layer else f"it is part of {layer.name}"


def _factor_and_shift(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return those of y = factor * x + shift, in float64: BN, Alg. 2, line 11."""
    mean, variance, gamma, beta = (
        None if weight is None else ops.convert_to_numpy(weight).astype("float64")
        for weight in (
            layer.moving_mean,
            layer.moving_variance,
            layer.gamma,
            layer.beta,
        )
    )
    factor = 1 / np.sqrt(variance + layer.epsilon)
    if gamma is not None:
        factor = gamma * factor
    return factor, (0 if beta is None else beta) - mean * factor
