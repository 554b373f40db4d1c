"""A SavedModel behind TensorFlow's batcher, which joins requests that come together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from service.serving.batching import BatchingParameters
from service.serving.signatures import Loaded, Signature, is_callable
from training.run import files

v1 = tf.compat.v1


def load_batched(
    session: Any, directory: Path, parameters: BatchingParameters
) -> Loaded:
    """Load a SavedModel with a batcher in front of each signature with a batch axis.

    Raises:
        tf.errors.OpError, OSError, ValueError: If it cannot be loaded.
    """
    functions = tf.saved_model.load(str(directory)).signatures
    definitions = signature_definitions(directory)
    signatures = {}
    for name, definition in definitions.items():
        if not is_callable(definition):
            continue
        inputs = {
            key: v1.placeholder(info.dtype, tf.TensorShape(info.tensor_shape))
            for key, info in definition.inputs.items()
        }
        function = functions[name]
        outputs = (
            _batched(function, inputs, list(definition.outputs), parameters)
            if inputs and all(map(_has_batch_axis, inputs.values()))
            else function(**inputs)
        )
        signatures[name] = Signature(inputs, outputs)
    session.run([v1.global_variables_initializer(), v1.tables_initializer()])
    return definitions, signatures


def signature_definitions(directory: Path) -> dict[str, Any]:
    """Return the `SignatureDef` of every signature, from the serialized graph.

    `tf.saved_model.load` keeps the functions and forgets the definitions.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it has no graph for serving.
    """
    saved_model = saved_model_pb2.SavedModel.FromString(
        (directory / files.GRAPH).read_bytes()
    )
    for meta_graph in saved_model.meta_graphs:
        if set(meta_graph.meta_info_def.tags) == {tf.saved_model.SERVING}:
            return dict(meta_graph.signature_def)
    raise ValueError(f"{directory} has no graph tagged {tf.saved_model.SERVING!r}.")


def _batched(
    function: Any,
    inputs: Mapping[str, tf.Tensor],
    outputs: list[str],
    parameters: BatchingParameters,
) -> dict[str, tf.Tensor]:
    @tf.nondifferentiable_batch_function(
        num_batch_threads=parameters.num_batch_threads,
        max_batch_size=parameters.max_batch_size,
        batch_timeout_micros=parameters.batch_timeout_micros,
        allowed_batch_sizes=list(parameters.allowed_batch_sizes) or None,
        max_enqueued_batches=parameters.max_enqueued_batches,
        autograph=False,
    )
    def batch(*tensors: tf.Tensor) -> list[tf.Tensor]:
        values = function(**dict(zip(inputs, tensors, strict=True)))
        return [values[name] for name in outputs]

    return dict(zip(outputs, batch(*inputs.values()), strict=True))


def _has_batch_axis(tensor: tf.Tensor) -> bool:
    return bool(tensor.shape.rank) and tensor.shape[0] is None
