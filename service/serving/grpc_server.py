"""TensorFlow Serving's gRPC API: PredictionService and ModelService."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from service.serving.errors import as_op_error, code_name, invalid, late
from service.serving.grpc_messages import (
    arrays_of,
    model_spec,
    output_names,
    signature_of,
    tensor_proto,
)
from service.serving.inference import Inference
from service.serving.routes import Serving
from training.errors import UserError
from training.run.files import DEFAULT_SIGNATURE

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_SIGNATURE_DEF = "signature_def"
_LARGEST_OPTION = 2**31 - 1  # gRPC's are of 32 bits


class GrpcServer:
    """The gRPC server of a `Serving`'s models.

    A request has a thread from its first byte on, so one that arrives slowly keeps no
    others waiting. It ends with its connection, whose age is limited.

    Args:
        serving: The models.
        address: Where to listen, such as 127.0.0.1:8500. Port 0 is any free port.

    Attributes:
        port: The port that it listens on.

    Raises:
        UserError: If it cannot listen on the address.
    """

    def __init__(self, serving: Serving, address: str) -> None:
        config = serving.config
        self._server = grpc.server(
            ThreadPoolExecutor(config.max_queue, "grpc"),
            maximum_concurrent_rpcs=config.max_queue,
            options=[
                ("grpc.max_connection_age_ms", _option(2000 * config.timeout)),
                ("grpc.max_connection_age_grace_ms", _option(1000 * config.timeout)),
                ("grpc.max_receive_message_length", _option(config.max_body_bytes)),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
            ],
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            _PredictionService(serving.inference, config.timeout, config.threads),
            self._server,
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            _ModelService(serving.inference), self._server
        )
        try:
            self.port: int = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise UserError(
                "`--host` and `--grpc-port` must be an address that is free here. "
                f"Received: {address}."
            ) from error

    def start(self) -> None:
        """Begin to answer."""
        self._server.start()

    def stop(self, grace: float) -> threading.Event:
        """Refuse new requests, and give those under way some seconds to finish.

        Returns:
            An event that is set as soon as all have ended.
        """
        return self._server.stop(grace)


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, inference: Inference, timeout: float, threads: int) -> None:
        self._inference = inference
        self._timeout = timeout
        self._turns = threading.BoundedSemaphore(threads)

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Answer with the outputs that the request names, or with all."""
        return self._answer("Predict", self._predict_in_turn, request, context)

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Answer with the definitions of all signatures."""
        return self._answer("GetModelMetadata", self._metadata, request, context)

    def _answer(
        self,
        api: str,
        method: Callable[[Any, float], Any],
        request: Any,
        context: grpc.ServicerContext,
    ) -> Any:
        start = time.monotonic()
        remaining = context.time_remaining()
        timeout = self._timeout if remaining is None else min(remaining, self._timeout)
        answer, error = _call(lambda: method(request, start + timeout))
        name = request.model_spec.name
        self._inference.metrics.request(
            name if self._inference.servables.knows(name) else "(none)",
            code_name(tf.errors.OK if error is None else error.error_code),
            *(api, "GRPC", time.monotonic() - start),
        )
        if error is not None:
            context.abort(_CODES[error.error_code], error.message)
        return answer

    def _predict_in_turn(self, request: Any, deadline: float) -> Any:
        if not self._turns.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise late("Timed out while waiting for others.")
        try:
            return self._predict(request, deadline)
        finally:
            self._turns.release()

    def _predict(self, request: Any, deadline: float) -> Any:
        spec = model_spec(request)
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        with self._inference.servables.use(spec.name, spec.version, spec.label) as (
            number,
            model,
        ):
            signature = signature_of(model, name)
            outputs = self._inference.run(
                model,
                signature,
                arrays_of(request, signature),
                output_names(request, signature),
                name=spec.name,
                api="Predict",
                deadline=deadline,
            )
        response = predict_pb2.PredictResponse()
        response.model_spec.name = spec.name
        response.model_spec.version.value = number
        response.model_spec.signature_name = name
        for key, array in outputs.items():
            response.outputs[key].CopyFrom(tensor_proto(array))
        return response

    def _metadata(self, request: Any, deadline: float) -> Any:
        spec = model_spec(request)
        if not request.metadata_field:
            raise invalid(
                "GetModelMetadataRequest must specify at least one metadata_field"
            )
        for field in request.metadata_field:
            if field != _SIGNATURE_DEF:
                raise invalid(f"Metadata field {field} is not supported")
        definitions = get_model_metadata_pb2.SignatureDefMap()
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        with self._inference.servables.use(spec.name, spec.version, spec.label) as (
            number,
            model,
        ):
            for name, definition in model.definitions.items():
                definitions.signature_def[name].CopyFrom(definition)
        response.model_spec.name = spec.name
        response.model_spec.version.value = number
        response.metadata[_SIGNATURE_DEF].Pack(definitions)
        return response


class _ModelService(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Answer with the states of one version or all."""
        answer, error = _call(lambda: self._status(request))
        if error is not None:
            context.abort(_CODES[error.error_code], error.message)
        return answer

    def _status(self, request: Any) -> Any:
        spec = model_spec(request)
        response = get_model_status_pb2.GetModelStatusResponse()
        for version in self._inference.servables.statuses(spec.name, spec.version):
            entry = response.model_version_status.add()
            entry.version = version.number
            entry.state = version.state.value
            if version.error is not None:
                entry.status.error_code = version.error.error_code
                entry.status.error_message = version.error.message
        return response


def _option(value: float) -> int:
    return min(round(value), _LARGEST_OPTION)


def _call(method: Callable[[], Any]) -> tuple[Any, tf.errors.OpError | None]:
    """Return the answer, or the error that the method has raised."""
    try:
        return method(), None
    except Exception as error:
        return None, as_op_error(error)
