"""The messages of gRPC, read and written by TensorFlow Serving's rules."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from service.serving.errors import invalid
from service.serving.inference import ModelSpec, find_signature
from service.serving.saved_model import SavedModel
from service.serving.signatures import Signature

_FIELDS: Mapping[tf.DType, str] = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.float16: "half_val",
    tf.bfloat16: "half_val",
    **dict.fromkeys((tf.int8, tf.int16, tf.int32, tf.uint8, tf.uint16), "int_val"),
    tf.int64: "int64_val",
    tf.uint32: "uint32_val",
    tf.uint64: "uint64_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
}


def model_spec(request: Any) -> ModelSpec:
    """Return the model and version that a request names.

    Raises:
        tf.errors.InvalidArgumentError: If the request names no model.
    """
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    spec = request.model_spec
    match spec.WhichOneof("version_choice"):
        case "version":
            return ModelSpec(spec.name, version=spec.version.value)
        case "version_label":
            return ModelSpec(spec.name, label=spec.version_label)
        case _:
            return ModelSpec(spec.name)


def signature_of(model: SavedModel, name: str) -> Signature:
    """Return a signature by name.

    Raises:
        tf.errors.OpError: If the model has no signature of the name.
    """
    if name not in model.definitions:
        raise tf.errors.FailedPreconditionError(
            None, None, f'Serving signature key "{name}" not found.'
        )
    return find_signature(model, name)


def arrays_of(request: Any, signature: Signature) -> dict[str, np.ndarray]:
    """Return the inputs of a predict request.

    Raises:
        tf.errors.InvalidArgumentError: If they are not those of the signature.
    """
    sent, required = set(request.inputs), set(signature.inputs)
    if sent != required:
        raise invalid(
            f"input size does not match signature: {len(sent)}!={len(required)} "
            f"len({_names(sent)}) != len({_names(required)}). "
            f"Sent extra: {_names(sent - required)}. "
            f"Missing but required: {_names(required - sent)}."
        )
    arrays = {}
    for name, tensor in request.inputs.items():
        try:
            array = tf.make_ndarray(tensor)
        except (TypeError, ValueError) as error:
            raise invalid(f"Input {name} is not a tensor: {error}") from None
        expected = signature.inputs[name].dtype
        if tf.as_dtype(tensor.dtype) != expected:
            raise invalid(
                f"Expects arg[{name}] to be {expected.name} but "
                f"{tf.as_dtype(tensor.dtype).name} is provided"
            )
        arrays[name] = array
    return arrays


def output_names(request: Any, signature: Signature) -> list[str]:
    """Return the outputs that a predict request names in its filter, or all.

    Raises:
        tf.errors.InvalidArgumentError: If the signature has no such output.
    """
    names = list(request.output_filter)
    for name in names:
        if name not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {name} "
                f"Outputs expected to be in the set {_names(signature.outputs)}."
            )
        if names.count(name) > 1:
            raise invalid(f"duplicate output tensor alias: {name}")
    return names or list(signature.outputs)


def tensor_proto(value: np.ndarray) -> Any:
    """Return a tensor with its values in the field of their type, such as `float_val`.

    TensorFlow Serving does so, and its example clients read that field.
    `tf.make_tensor_proto` leaves the field empty if there is more than one value.
    """
    array = np.asarray(value)
    dtype = tf.as_dtype(array.dtype)
    if dtype not in _FIELDS:
        return tf.make_tensor_proto(array)
    message = tensor_pb2.TensorProto(
        dtype=dtype.as_datatype_enum,
        tensor_shape=tf.TensorShape(array.shape).as_proto(),
    )
    field = _FIELDS[dtype]
    bits = array.view(np.uint16) if field == "half_val" else array
    getattr(message, field).extend(bits.ravel().tolist())
    return message


def _names(names: Any) -> str:
    return f"{{{','.join(sorted(names))}}}"
