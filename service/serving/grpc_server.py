"""TensorFlow Serving's gRPC API: PredictionService and ModelService."""

import functools
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
)

from service.serving.errors import answered, code_name, invalid, late, shown
from service.serving.grpc_messages import (
    SIGNATURE_DEF,
    answer_size,
    arrays_of,
    metadata_response,
    model_spec,
    output_names,
    predict_response,
    sent_tensors,
    signature_of,
    status_response,
)
from service.serving.room import Hold
from service.serving.routes import SMALL_ANSWER, Serving
from service.serving.signatures import Signature
from service.serving.wire import parsed_size
from training.errors import UserError
from training.run.files import DEFAULT_SIGNATURE

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_COUNTED = ("Predict", "GetModelMetadata")
_LARGEST_OPTION = 2**31 - 1  # gRPC's are of 32 bits
_MOST_METADATA = 2**16
_COPIES = 2  # of an answer that is not read yet: Python's and gRPC's
_LONGEST_DETAILS = 2000  # bytes; encoded, three times as many of 8 KiB of metadata


class GrpcServer:
    """The gRPC server of a `Serving`'s models.

    A request has a thread from its first byte on, so one that arrives slowly keeps no
    others waiting. It ends with its connection, whose age is limited.

    Args:
        serving: The models.
        address: Where to listen, such as 127.0.0.1:8500. Port 0 is any free port.
        is_shared: Whether several processes listen there.

    Attributes:
        port: The port that it listens on.

    Raises:
        UserError: If it cannot listen on the address.
    """

    def __init__(self, serving: Serving, address: str, is_shared: bool = False) -> None:
        config = serving.config
        self._server = grpc.server(
            ThreadPoolExecutor(config.max_queue, "grpc"),
            maximum_concurrent_rpcs=config.max_queue,
            options=[
                ("grpc.max_connection_age_ms", _option(2000 * config.timeout)),
                ("grpc.max_connection_age_grace_ms", _option(1000 * config.timeout)),
                ("grpc.max_receive_message_length", _option(config.max_body_bytes)),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", _MOST_METADATA),
                ("grpc.absolute_max_metadata_size", _MOST_METADATA),
                ("grpc.so_reuseport", int(is_shared)),
            ],
        )
        self._server.add_generic_rpc_handlers(_Service(serving).handlers)
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


class _Sent:
    """A message as it has arrived, and the room for what it becomes."""

    def __init__(self, message: bytes, kind: Any, hold: Hold) -> None:
        self.hold = hold
        self.model = ""
        self._message = message
        self._kind = kind

    def parsed(self) -> Any:
        """Return the parsed message, which nobody else keeps.

        Raises:
            tf.errors.OpError: If it is damaged, or there is no room for it.
        """
        descriptor = self._kind.DESCRIPTOR
        self.hold.change(parsed_size(self._message, descriptor, self.hold.most))
        try:
            request = self._kind.FromString(self._message)
        except DecodeError as error:
            raise invalid(f"The message is not a {descriptor.name}: {error}.") from None
        self.model = request.model_spec.name
        return request


class _Service:
    """The calls of both services, which take and give serialized messages."""

    def __init__(self, serving: Serving) -> None:
        self._inference = serving.inference
        self._bodies = serving.workers.bodies
        self._answers = serving.workers.answers
        self._timeout = serving.config.timeout
        self._turns = threading.BoundedSemaphore(serving.config.threads)

    @property
    def handlers(self) -> list[Any]:
        """The services, as a gRPC server takes them."""
        # Without functions that read messages, gRPC gives them as bytes. So they can be
        # counted before they are parsed.
        predictions = {
            "Predict": (self._predict_in_turn, predict_pb2.PredictRequest),
            "GetModelMetadata": (
                self._metadata,
                get_model_metadata_pb2.GetModelMetadataRequest,
            ),
        }
        statuses = {
            "GetModelStatus": (
                self._status,
                get_model_status_pb2.GetModelStatusRequest,
            )
        }
        return [
            grpc.method_handlers_generic_handler(
                f"tensorflow.serving.{service}",
                {
                    api: grpc.unary_unary_rpc_method_handler(
                        functools.partial(self._answer, api, *method)
                    )
                    for api, method in methods.items()
                },
            )
            for service, methods in (
                ("PredictionService", predictions),
                ("ModelService", statuses),
            )
        ]

    def _answer(
        self,
        api: str,
        method: Callable[[_Sent], bytes],
        kind: Any,
        message: bytes,
        context: grpc.ServicerContext,
    ) -> bytes:
        start = time.monotonic()
        remaining = context.time_remaining()
        timeout = self._timeout if remaining is None else min(remaining, self._timeout)
        answer, error, model = b"", None, ""
        try:
            with (
                self._bodies.keep(len(message)),
                self._inference.room.hold(start + timeout, len(message)) as hold,
            ):
                sent = _Sent(message, kind, hold)
                try:
                    answer = method(sent)
                    self._keep(answer, context)
                except Exception as failure:
                    error = answered(failure)
                model = sent.model
        except tf.errors.OpError as full:
            error = full
        if api in _COUNTED:
            self._inference.metrics.request(
                model if self._inference.servables.knows(model) else "(none)",
                code_name(tf.errors.OK if error is None else error.error_code),
                *(api, "GRPC", time.monotonic() - start),
            )
        if error is not None:
            details = shown(error).encode()[:_LONGEST_DETAILS].decode(errors="ignore")
            context.abort(_CODES[error.error_code], details)
        return answer

    def _keep(self, answer: bytes, context: grpc.ServicerContext) -> None:
        """Take room for a large answer until the client has read it.

        Raises:
            tf.errors.ResourceExhaustedError: If there is none.
        """
        if len(answer) <= SMALL_ANSWER:
            return
        size = min(self._answers.most, _COPIES * len(answer))
        self._answers.take(size)
        if not context.add_callback(functools.partial(self._answers.give, size)):
            self._answers.give(size)  # the client has gone

    def _predict_in_turn(self, sent: _Sent) -> bytes:
        if not self._turns.acquire(timeout=sent.hold.seconds_left):
            raise late("Timed out while waiting for others.")
        try:
            return self._predict(sent)
        finally:
            self._turns.release()

    def _predict(self, sent: _Sent) -> bytes:
        request = sent.parsed()
        spec = model_spec(request)
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        with self._inference.servables.use(spec.name, spec.version, spec.label) as (
            number,
            model,
        ):
            signature = signature_of(model, name)
            names = output_names(request, signature)
            inputs = self._inputs(request, signature, sent.hold)
            del request
            outputs = self._inference.run(
                model,
                signature,
                inputs,
                names,
                name=spec.name,
                api="Predict",
                hold=sent.hold,
            )
        del inputs
        sent.hold.change(min(sent.hold.most, answer_size(outputs)))
        return predict_response(spec.name, number, name, outputs)

    def _inputs(
        self, request: Any, signature: Signature, hold: Hold
    ) -> dict[str, np.ndarray]:
        tensors = sent_tensors(request, signature)
        size = sum(tensor.nbytes for tensor in tensors.values())
        hold.grow(self._inference.room_for(size))
        return arrays_of(tensors)

    def _metadata(self, sent: _Sent) -> bytes:
        request = sent.parsed()
        spec = model_spec(request)
        if not request.metadata_field:
            raise invalid(
                "GetModelMetadataRequest must specify at least one metadata_field"
            )
        for field in request.metadata_field:
            if field != SIGNATURE_DEF:
                raise invalid(f"Metadata field {field} is not supported")
        with self._inference.servables.use(spec.name, spec.version, spec.label) as (
            number,
            model,
        ):
            return metadata_response(spec.name, number, model.definitions)

    def _status(self, sent: _Sent) -> bytes:
        spec = model_spec(sent.parsed())
        statuses = self._inference.servables.statuses(spec.name, spec.version)
        return status_response(statuses)


def _option(value: float) -> int:
    return min(round(value), _LARGEST_OPTION)
