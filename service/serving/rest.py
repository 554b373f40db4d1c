"""TensorFlow Serving's REST methods, apart from HTTP."""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
import tensorflow as tf
from google.protobuf.json_format import MessageToDict

from service.serving import examples, json_output
from service.serving.errors import code_name, invalid
from service.serving.inference import Inference, ModelSpec, find_signature
from service.serving.json_values import (
    parsed_size,
    read_document,
    read_signature_name,
)
from service.serving.predict_request import PredictRequest
from service.serving.room import Hold
from service.serving.versions import Status
from training.run.files import DEFAULT_SIGNATURE

_NAME = r"([^/:]+)"
_VERSION = rf"(?:(?:/versions/(\d+))|(?:/labels/{_NAME}))?"
_FLAGS = re.IGNORECASE | re.ASCII
_PREDICTION = re.compile(
    rf"/v1/models/{_NAME}{_VERSION}:(classify|regress|predict)", _FLAGS
)
_STATUS = re.compile(rf"/v1/models(?:/{_NAME})?{_VERSION}(?:/(metadata))?", _FLAGS)
_LARGEST_VERSION = 2**63 - 1


@dataclass(frozen=True)
class Call:
    """A method of the API, and the model that it is called on."""

    method: str
    spec: ModelSpec


def parse_call(http_method: str, path: str) -> Call:
    """Return the call that a request line makes.

    The path may have letters of either case, but the method must be in small letters:
    TensorFlow Serving's pattern takes both, and then its server does not know it.

    Args:
        http_method: GET or POST; others are refused.
        path: The path as sent, still encoded.

    Raises:
        tf.errors.InvalidArgumentError: If the API has no such call.
    """
    pattern = {"POST": _PREDICTION, "GET": _STATUS}.get(http_method)
    match = pattern.fullmatch(path) if pattern else None
    if match is None:
        raise _malformed(http_method, path)
    name, number, label, method = match.groups()
    version = None if number is None else int(number[-20:])
    if version is not None and (version > _LARGEST_VERSION or len(number) > 20):
        raise invalid(f"Failed to convert version: {number} to numeric.")
    if http_method == "POST" and method != method.lower():
        raise _malformed(http_method, path)
    if not name:
        raise invalid("Missing model name in request.")
    if http_method == "GET" and method != "metadata":
        method = "status"
    return Call(method, ModelSpec(_decode(name), version, label and _decode(label)))


def status(inference: Inference, spec: ModelSpec) -> bytes:
    """Answer `GET /v1/models/NAME`; a label makes no difference.

    Raises:
        tf.errors.NotFoundError: If there is no such version.
    """
    statuses = inference.servables.statuses(spec.name, spec.version)
    return json_output.dumps({"model_version_status": list(map(_status, statuses))})


def metadata(inference: Inference, spec: ModelSpec) -> bytes:
    """Answer `GET /v1/models/NAME/metadata`.

    Raises:
        tf.errors.OpError: If there is no such version.
    """
    with inference.servables.use(spec.name, spec.version, spec.label) as (
        number,
        model,
    ):
        definitions = {
            name: MessageToDict(
                definition,
                always_print_fields_with_no_presence=True,
                preserving_proto_field_name=True,
            )
            for name, definition in sorted(model.definitions.items())
        }
    return json_output.dumps(
        {
            "model_spec": {
                "name": spec.name,
                "signature_name": "",
                "version": str(number),
            },
            "metadata": {"signature_def": {"signature_def": definitions}},
        }
    )


def predict(inference: Inference, spec: ModelSpec, body: bytes, hold: Hold) -> bytes:
    """Answer `POST /v1/models/NAME:predict`.

    Raises:
        tf.errors.OpError: If the request is wrong or the model fails.
    """
    request = PredictRequest(body, hold)
    with inference.servables.use(spec.name, spec.version, spec.label) as (_, model):
        signature = find_signature(model, request.signature_name)
        types = {name: tensor.dtype for name, tensor in signature.inputs.items()}
        outputs = inference.run(
            model,
            signature,
            request.tensors(types),
            signature.outputs.keys(),
            name=spec.name,
            api="Predict",
            hold=hold,
        )
    hold.change(min(hold.most, json_output.printed_size(outputs)))
    return json_output.predictions(outputs, request.is_row_format)


def classify(inference: Inference, spec: ModelSpec, body: bytes, hold: Hold) -> bytes:
    """Answer `POST /v1/models/NAME:classify`.

    Raises:
        tf.errors.OpError: If the request is wrong or the model fails.
    """
    results, count = _run_examples(
        inference, spec, body, hold, examples.CLASSIFY, "Classify"
    )
    return _results(examples.classifications(results, count), results)


def regress(inference: Inference, spec: ModelSpec, body: bytes, hold: Hold) -> bytes:
    """Answer `POST /v1/models/NAME:regress`.

    Raises:
        tf.errors.OpError: If the request is wrong or the model fails.
    """
    results, count = _run_examples(
        inference, spec, body, hold, examples.REGRESS, "Regress"
    )
    return _results(examples.regressions(results, count), results)


METHODS = {"predict": predict, "classify": classify, "regress": regress}


def _run_examples(
    inference: Inference,
    spec: ModelSpec,
    body: bytes,
    hold: Hold,
    method_name: str,
    api: str,
) -> tuple[dict[str, np.ndarray], int]:
    hold.change(examples.PARTS * parsed_size(body))
    document = read_document(body)
    signature_name = read_signature_name(document)
    serialized = examples.read_examples(document, hold)
    del document
    with inference.servables.use(spec.name, spec.version, spec.label) as (_, model):
        outputs = examples.check_signature(
            signature_name or DEFAULT_SIGNATURE,
            model.definitions.get(signature_name or DEFAULT_SIGNATURE),
            method_name,
        )
        results = inference.run(
            model,
            find_signature(model, signature_name),
            {examples.INPUTS: serialized},
            outputs,
            name=spec.name,
            api=api,
            hold=hold,
        )
    return results, len(serialized)


def _results(value: Any, arrays: dict[str, np.ndarray]) -> bytes:
    is_finite = all(
        array.dtype.kind != "f" or np.isfinite(array).all() for array in arrays.values()
    )
    return json_output.dumps({"results": value}, is_finite)


def _status(version: Status) -> dict[str, Any]:
    error = version.error
    return {
        "version": str(version.number),
        "state": version.state.name,
        "status": {
            "error_code": code_name(
                tf.errors.OK if error is None else error.error_code
            ),
            "error_message": "" if error is None else error.message,
        },
    }


def _malformed(http_method: str, path: str) -> tf.errors.OpError:
    return invalid(f"Malformed request: {http_method} {path}")


def _decode(text: str) -> str:
    return unquote_to_bytes(text).decode("utf-8", "surrogateescape")
