"""The messages of gRPC, read and written by TensorFlow Serving's rules."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
)

from service.serving.errors import invalid, missing_signature
from service.serving.inference import ModelSpec, callable_signature
from service.serving.saved_model import SavedModel
from service.serving.signatures import Signature, check_inputs, show_names
from service.serving.tensors import SentTensor, nbytes, tensor_proto
from service.serving.versions import Status

SIGNATURE_DEF = "signature_def"
"""The only field of metadata that there is."""

_PER_VALUE = 40  # bytes: a value of an array that grows, and its ten digits


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
    """Return a signature by name. Over gRPC it may have no inputs.

    Raises:
        tf.errors.OpError: If the model has no such signature, or it cannot be called.
    """
    if name not in model.definitions:
        raise missing_signature(name)
    return callable_signature(model, name)


def sent_tensors(request: Any, signature: Signature) -> dict[str, SentTensor]:
    """Return the inputs of a predict request; defaults stand for those left out.

    Raises:
        tf.errors.InvalidArgumentError: If they are not those of the signature.
    """
    sent = request.inputs
    check_inputs(signature, set(sent))
    tensors = {}
    for name, tensor in signature.inputs.items():
        with _about(name):
            tensors[name] = SentTensor(
                sent[name] if name in sent else signature.defaults[name]
            )
        expected, received = tensor.dtype, tensors[name].dtype
        if received != expected:
            raise invalid(
                f"Expects arg[{name}] to be {expected.name} but "
                f"{received.name} is provided"
            )
    return tensors


def arrays_of(tensors: Mapping[str, SentTensor]) -> dict[str, np.ndarray]:
    """Return the values of tensors.

    Raises:
        tf.errors.InvalidArgumentError: If one has too few or too many bytes.
    """
    arrays = {}
    for name, tensor in tensors.items():
        with _about(name):
            arrays[name] = tensor.array()
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
                f"Outputs expected to be in the set {show_names(signature.outputs)}."
            )
        if names.count(name) > 1:
            raise invalid(f"duplicate output tensor alias: {name}")
    return names or list(signature.outputs)


def answer_size(outputs: Mapping[str, np.ndarray]) -> int:
    """Return an upper bound of the memory that `predict_response` needs."""
    return sum(
        _PER_VALUE * array.size + 4 * nbytes(array) for array in outputs.values()
    )


def predict_response(
    model: str, version: int, signature: str, outputs: Mapping[str, np.ndarray]
) -> bytes:
    """Return the answer to a predict request."""
    response = predict_pb2.PredictResponse()
    response.model_spec.name = model
    response.model_spec.version.value = version
    response.model_spec.signature_name = signature
    for name, array in outputs.items():
        response.outputs[name].CopyFrom(tensor_proto(array))
    return bytes(response.SerializeToString())


def metadata_response(
    model: str, version: int, definitions: Mapping[str, Any]
) -> bytes:
    """Return a model's `SignatureDef`s."""
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in definitions.items():
        signatures.signature_def[name].CopyFrom(definition)
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = model
    response.model_spec.version.value = version
    response.metadata[SIGNATURE_DEF].Pack(signatures)
    return bytes(response.SerializeToString())


def status_response(statuses: Iterable[Status]) -> bytes:
    """Return the states of versions."""
    response = get_model_status_pb2.GetModelStatusResponse()
    for version in statuses:
        entry = response.model_version_status.add()
        entry.version = version.number
        entry.state = version.state.value
        if version.error is not None:
            entry.status.error_code = version.error.error_code
            entry.status.error_message = version.error.message
    return bytes(response.SerializeToString())


@contextlib.contextmanager
def _about(name: str) -> Iterator[None]:
    """Say which input an error is about."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        raise invalid(f"Input {name} is not a tensor: {error.message}") from None
