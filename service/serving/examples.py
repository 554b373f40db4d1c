"""The `classify` and `regress` methods: JSON to examples, outputs to results."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from service.serving.errors import invalid
from service.serving.json_values import (
    decode_base64,
    is_base64,
    text_to_bytes,
    type_name,
    value_error,
)
from service.serving.room import Hold

CLASSIFY = tf.saved_model.CLASSIFY_METHOD_NAME
REGRESS = tf.saved_model.REGRESS_METHOD_NAME
INPUTS = "inputs"
PARTS = 2
"""How often the memory of a document is needed: as objects, as `tf.train.Example`s."""
_INT64 = range(-(2**63), 2**63)
_UINT64 = range(2**64)
_MOST_BYTES_OF_CONTEXT = 64 * 2**20
_COPIES = 3  # of an example: joined with its context, as an array, in TensorFlow


def read_examples(document: dict[str, Any], hold: Hold) -> np.ndarray:
    """Return the serialized examples of a request's body.

    Args:
        document: The parsed body.
        hold: What the request holds of the room, which copies of the context need more
            of.

    Raises:
        tf.errors.OpError: If the body is not a request to classify or regress.
    """
    context = b""
    if "context" in document:
        context = _example(document["context"]).SerializeToString()
    if "examples" not in document:
        raise value_error(
            document,
            "When method is classify, key 'examples' is expected and was not found",
        )
    examples = document["examples"]
    if not isinstance(examples, list):
        raise value_error(document, "Expecting 'examples' value to be an list/array")
    if not examples:
        raise value_error(document, "'examples' value is an empty array")
    hold.grow(_COPIES * _size_of_copies(context, len(examples)))
    # Serialized messages that follow each other are one message, merged.
    return _strings([context + _example(e).SerializeToString() for e in examples])


def serialized(request: Any) -> np.ndarray:
    """Return the serialized examples of an `Input` message.

    Raises:
        tf.errors.OpError: If there are none, or their context takes too much memory.
    """
    context = b""
    match request.WhichOneof("kind"):
        case "example_list":
            examples = request.example_list.examples
        case "example_list_with_context":
            examples = request.example_list_with_context.examples
            context = request.example_list_with_context.context.SerializeToString()
        case _:
            examples = []
    if not examples:
        raise invalid("Input is empty.")
    _size_of_copies(context, len(examples))
    return _strings([context + example.SerializeToString() for example in examples])


def check_signature(name: str, definition: Any, method: str) -> tuple[str, ...]:
    """Check that a signature can answer `classify` or `regress`.

    Args:
        name: The signature's name.
        definition: The `SignatureDef`, or `None` if no signature has the name.
        method: `CLASSIFY` or `REGRESS`.

    Returns:
        The outputs to fetch.

    Raises:
        tf.errors.OpError: If it cannot.
    """
    kind = "classification" if method == CLASSIFY else "regression"
    if definition is None:
        raise invalid(f"No signature was found with the name: {name}")
    if definition.method_name != method:
        raise invalid(
            f"Expected {kind} signature method_name to be {method}. "
            f"Was: {definition.method_name}"
        )
    if len(definition.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    allowed = ("classes", "scores") if method == CLASSIFY else ("outputs",)
    outputs = tuple(name for name in allowed if name in definition.outputs)
    if INPUTS not in definition.inputs or not outputs:
        raise tf.errors.FailedPreconditionError(
            None, None, f"No {kind} inputs or outputs found in SignatureDef: {name}"
        )
    return outputs


def classifications(
    results: dict[str, np.ndarray], count: int
) -> list[list[list[Any]]]:
    """Return a list of [label, score] for each example.

    Raises:
        tf.errors.OpError: If an output does not have one row for each example.
    """
    for name, array in results.items():
        if array.ndim != 2:
            raise invalid(
                "Expected Tensor shape: [batch_size num_classes] but got "
                f"{list(array.shape)}"
            )
        if len(array) != count:
            raise invalid(
                f"Expected {name} output batch size of {count}. Got: {len(array)}"
            )
    shape = next(iter(results.values())).shape
    classes = results.get("classes", np.full(shape, b"", object))
    scores = results.get("scores", np.zeros(shape, np.float32))
    if classes.shape != scores.shape:
        raise invalid(
            "Tensors class and score should match in dim_size(1). Got "
            f"{classes.shape[1]} vs. {scores.shape[1]}"
        )
    return [
        [[label, score] for label, score in zip(*row, strict=True)]
        for row in zip(classes, scores, strict=True)
    ]


def regressions(results: dict[str, np.ndarray], count: int) -> np.ndarray:
    """Return one value for each example.

    Raises:
        tf.errors.OpError: If the output has another shape.
    """
    (values,) = results.values()
    if values.shape not in ((count,), (count, 1)):
        raise invalid(
            "Expected output Tensor shape to be either [batch_size] or "
            f"[batch_size, 1] but got {list(values.shape)}"
        )
    return values.reshape(count)


def _size_of_copies(context: bytes, count: int) -> int:
    """Return the size of all copies of the context; each example gets one.

    Raises:
        tf.errors.InvalidArgumentError: If it is too large.
    """
    size = len(context) * count
    if size > _MOST_BYTES_OF_CONTEXT:
        raise invalid(
            f"The context times the number of examples has at most "
            f"{_MOST_BYTES_OF_CONTEXT} bytes. Received: {size}."
        )
    return size


def _strings(values: Sequence[bytes]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _example(value: Any) -> tf.train.Example:
    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {type_name(value)}")
    example = tf.train.Example()
    for name, content in value.items():
        try:
            feature = example.features.feature[name]
        except UnicodeEncodeError:
            raise invalid(f"The name of a feature is not UTF-8: {name!a}") from None
        for item in content if isinstance(content, list) else [content]:
            _add(feature, name, item)
    return example


def _add(feature: tf.train.Feature, name: str, value: Any) -> None:
    kind: str
    converted: Any
    match value:
        case bool() | int():
            kind, converted = "int64_list", int(value)
            if converted not in _INT64:
                if converted in _UINT64:
                    raise invalid(
                        f"Feature: {name} has uint64 element. "
                        "Only int64_t is supported."
                    )
                kind, converted = "float_list", float(value)
        case float():
            kind, converted = "float_list", value
        case str():
            kind, converted = "bytes_list", text_to_bytes(value)
        case dict() if is_base64(value):
            kind, converted = "bytes_list", decode_base64(value)
        case _:
            raise invalid(
                f"Feature: {name} has element with unexpected JSON type: "
                f"{type_name(value)}"
            )
    present = feature.WhichOneof("kind")
    if present not in (None, kind):
        expected = present.removesuffix("_list")
        raise invalid(
            f"Unexpected element type in feature: {name} expecting type: {expected}"
        )
    getattr(feature, kind).value.append(converted)
