"""The messages of gRPC, read and written by TensorFlow Serving's rules."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from service.serving.errors import invalid
from service.serving.inference import ModelSpec, find_signature
from service.serving.saved_model import SavedModel
from service.serving.signatures import Signature
from service.serving.tensors import SentTensor


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


def sent_tensors(request: Any, signature: Signature) -> dict[str, SentTensor]:
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
    tensors = {}
    for name, message in request.inputs.items():
        with _about(name):
            tensors[name] = SentTensor(message)
        expected, received = signature.inputs[name].dtype, tensors[name].dtype
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
                f"Outputs expected to be in the set {_names(signature.outputs)}."
            )
        if names.count(name) > 1:
            raise invalid(f"duplicate output tensor alias: {name}")
    return names or list(signature.outputs)


@contextlib.contextmanager
def _about(name: str) -> Iterator[None]:
    """Say which input an error is about."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        raise invalid(f"Input {name} is not a tensor: {error.message}") from None


def _names(names: Any) -> str:
    return f"{{{','.join(sorted(names))}}}"
