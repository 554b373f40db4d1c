"""Compute a call again in the backward pass, its state as in the forward pass."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from kerasnorm import backend
from kerasnorm._keras import call_in, without_autocast
from kerasnorm._scoped import Scoped
from kerasnorm.functional import Tensor

_IS_RECOMPUTED = Scoped(False)


def recomputed(
    layer: keras.layers.Layer, function: Callable[..., Any]
) -> Callable[..., Any]:
    """Return `function` of tensors, computed again in the backward pass in training.

    It may use the variables of `layer`. In both passes they have the values from before
    the call, random state included. What it assigns and its losses count once.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        training = kwargs.get("training")
        if not ops.is_tensor(training) and not training:
            return function(*args, **kwargs)
        check_is_first_pass(layer)
        leaves = keras.tree.flatten(args)
        places = [i for i, leaf in enumerate(leaves) if _is_differentiable(leaf)]
        trained = layer.trainable_variables
        others = layer.non_trainable_variables
        with without_autocast():
            weights = [ops.copy(v.value) for v in trained]
            before = [ops.copy(v.value) for v in others]

        def run(*tensors: Tensor) -> tuple[Any, list[Tensor | None], list[Tensor]]:
            values, inputs = tensors[: len(trained)], list(leaves)
            for place, tensor in zip(places, tensors[len(trained) :], strict=True):
                inputs[place] = tensor
            scope = keras.StatelessScope(collect_losses=True)
            for update in (
                *zip(trained, values, strict=True),
                *zip(others, before, strict=True),
            ):
                scope.add_update(update)
            old = [scope.get_current_value(variable) for variable in others]
            with scope, _IS_RECOMPUTED.holds(True), call_in(layer, training):
                packed = keras.tree.pack_sequence_as(args, inputs)
                outputs = function(*packed, **kwargs)
            new = [scope.get_current_value(variable) for variable in others]
            changed = [None if n is o else n for n, o in zip(new, old, strict=True)]
            return outputs, changed, scope.losses

        tensors = (*weights, *(leaves[place] for place in places))
        outputs, changed, losses = _remat(run, tensors)
        for variable, value in zip(others, changed, strict=True):
            if value is not None:
                variable.assign(value)
        for loss in losses:
            layer.add_loss(loss)
        return outputs

    return call


def check_is_first_pass(layer: keras.layers.Layer) -> None:
    """Refuse a second pass that knows nothing of the state of the first one.

    `layer` would draw another mask, or count the batch twice.
    """
    if backend.is_second_pass() and not _IS_RECOMPUTED.get():
        raise RuntimeError(
            f"{layer.name!r} must be called again for its gradient by "
            "`kerasnorm.recompute`. Received: a call by tf.recompute_grad, keras.remat "
            "or torch.utils.checkpoint, which do not keep the state of the first one: "
            "it would draw another mask or count the batch twice."
        )


def _remat(
    run: Callable[..., tuple[Any, list[Tensor | None], list[Tensor]]],
    tensors: tuple[Tensor, ...],
) -> tuple[Any, list[Tensor | None], list[Tensor]]:
    if keras.backend.backend() == "jax":
        # Nothing but its outputs leaves what JAX traces.
        results: tuple[Any, Any, Any] = backend.remat(run)(*tensors)
        return results
    first: list[Any] = []
    is_first = True

    def outputs_and_losses(*tensors: Tensor) -> list[Tensor]:
        outputs, changed, losses = run(*tensors)
        if is_first:
            first.extend((outputs, changed))
        return [*keras.tree.flatten(outputs), *losses]

    flat = backend.remat(outputs_and_losses)(*tensors)
    is_first = False
    structure, changed = first
    first.clear()
    number = len(keras.tree.flatten(structure))
    outputs = keras.tree.pack_sequence_as(structure, flat[:number])
    return outputs, changed, flat[number:]


def _is_differentiable(leaf: Any) -> bool:
    return bool(ops.is_tensor(leaf) and keras.backend.is_float_dtype(leaf.dtype))
