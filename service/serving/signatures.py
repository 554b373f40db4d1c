"""The signatures of a SavedModel, as tensors of a session's graph."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from service.serving.errors import invalid


@dataclass(frozen=True, eq=False)
class Signature:
    """The tensors that a signature feeds and fetches.

    Attributes:
        inputs: The tensors to feed, by name.
        outputs: The tensors to fetch, by name.
        defaults: A `TensorProto` for each input that may be left out.
    """

    inputs: Mapping[str, tf.Tensor]
    outputs: Mapping[str, tf.Tensor]
    defaults: Mapping[str, Any]

    @property
    def has_batch_axis(self) -> bool:
        """Whether every input has a first axis of any size."""
        shapes = [tensor.shape for tensor in self.inputs.values()]
        return bool(shapes) and all(s.rank and s[0] is None for s in shapes)


Loaded = tuple[Mapping[str, Any], Mapping[str, Signature]]
"""The `SignatureDef` of every signature, and the signatures that can be called."""


def load(session: Any, directory: Path) -> Loaded:
    """Load a SavedModel into a session.

    Raises:
        tf.errors.OpError, OSError, ValueError: If it cannot be loaded.
    """
    meta_graph = tf.compat.v1.saved_model.loader.load(
        session, [tf.saved_model.SERVING], str(directory)
    )
    tensor = session.graph.get_tensor_by_name
    definitions = dict(meta_graph.signature_def)
    return definitions, {
        name: Signature(
            {key: tensor(info.name) for key, info in definition.inputs.items()},
            {key: tensor(info.name) for key, info in definition.outputs.items()},
            {k: v for k, v in definition.defaults.items() if k in definition.inputs},
        )
        for name, definition in definitions.items()
        if _is_callable(definition)
    }


def check_inputs(signature: Signature, sent: set[str]) -> None:
    """Check that a request has all inputs that it must have, and no others.

    Raises:
        tf.errors.InvalidArgumentError: If one is missing or too many.
    """
    required, defaults = set(signature.inputs), set(signature.defaults)
    if len(sent) > len(required) or (len(sent) < len(required) and not defaults):
        raise invalid(
            f"input size does not match signature: {len(sent)}!={len(required)} "
            f"len({show_names(sent)}) != len({show_names(required)}). "
            f"Sent extra: {show_names(sent - required)}. "
            f"Missing but required: {show_names(required - sent)}."
        )
    for name in sorted(required - sent - defaults):
        raise invalid(
            f"Signature input alias: {name}(feed name: {signature.inputs[name].name}) "
            "not found in request and no default value provided. Inputs expected to "
            f"be in the request {show_names(sent)}, or default input alias set: "
            f"{','.join(sorted(defaults))}"
        )
    if sent - required:
        raise invalid(
            "Inputs contains invalid name. Used request inputs: "
            f"{','.join(sorted(sent & required))}, "
            f"request input: {','.join(sorted(sent))}"
        )


def show_names(names: Iterable[str]) -> str:
    """Return names as TensorFlow Serving's messages show them."""
    return f"{{{','.join(sorted(names))}}}"


def _is_callable(definition: Any) -> bool:
    """Return whether a signature has outputs, and only dense tensors.

    `__saved_model_init_op` has an output that is not a tensor.
    """
    infos = [*definition.inputs.values(), *definition.outputs.values()]
    return bool(definition.outputs) and all(info.name and info.dtype for info in infos)
