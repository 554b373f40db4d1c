"""The signatures of a SavedModel, as tensors of a session's graph."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf


@dataclass(frozen=True, eq=False)
class Signature:
    """The tensors that a signature feeds and fetches."""

    inputs: Mapping[str, tf.Tensor]
    outputs: Mapping[str, tf.Tensor]

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
        )
        for name, definition in definitions.items()
        if _is_callable(definition)
    }


def _is_callable(definition: Any) -> bool:
    """Return whether a signature has outputs, and only dense tensors.

    `__saved_model_init_op` has an output that is not a tensor.
    """
    infos = [*definition.inputs.values(), *definition.outputs.values()]
    return bool(definition.outputs) and all(info.name and info.dtype for info in infos)
