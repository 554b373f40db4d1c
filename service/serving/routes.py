"""TensorFlow Serving's REST API over HTTP, as one route of an ASGI application."""

import asyncio
import functools
import json
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tensorflow as tf
from starlette.datastructures import URLPath
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Match, NoMatchFound, Route
from starlette.types import Receive, Scope, Send

from service.serving import metrics, rest
from service.serving.config import ServingConfig
from service.serving.errors import (
    HTTP_STATUS,
    as_op_error,
    code_name,
    exhausted,
    invalid,
    late,
)
from service.serving.inference import Inference
from service.serving.servables import Servables

_JSON = {"content-type": "application/json"}
_GRACE = 1.0  # seconds that TensorFlow gets to notice that time has run out


class Serving:
    """The models and those who ask for predictions.

    Args:
        config: How models are served.

    Raises:
        UserError: If the model config file is not usable.
    """

    def __init__(self, config: ServingConfig) -> None:
        self.config = config
        self.metrics = metrics.Metrics()
        self.servables = Servables(
            config.model_base_path,
            config.model_config_file,
            config.poll_interval,
            config.batching,
            config.timeout,
        )
        self.inference = Inference(self.servables, self.metrics)
        self._workers = ThreadPoolExecutor(config.threads, "predict")
        self._under_way = 0
        self._pending_bytes = 0

    @property
    def routes(self) -> list[BaseRoute]:
        """The routes of an application; they take all of /v1/ that others leave."""
        return [
            Route(metrics.PATH, self._metrics),
            Route("/healthz", self._health),
            Route("/readyz", self._readiness),
            _RestRoute(self),
        ]

    def start(self) -> None:
        """Begins to load models."""
        self.servables.start()

    def stop(self) -> None:
        """Finishes what has begun, and unloads the models."""
        self._workers.shutdown()
        self.servables.stop()

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request to /v1/, as an ASGI application."""
        response = await self.answer(Request(scope, receive))
        await response(scope, receive, send)

    async def answer(self, request: Request) -> Response:
        """Answers a request to /v1/."""
        start = time.monotonic()
        path = request.scope.get("raw_path") or request.url.path.encode()
        call = None
        try:
            call = rest.parse_call(request.method, path.decode("latin-1"))
            if call.method in rest.METHODS:
                body = await self._body(request)
                start = time.monotonic()
                encoding = request.headers.get("content-encoding", "")
                answer = await self._work(call, body, "gzip" in encoding)
            elif call.method == "metadata":
                answer = rest.metadata(self.inference, call.spec)
            else:
                answer = rest.status(self.inference, call.spec)
            response, code = Response(answer, 200, _JSON), tf.errors.OK
        except HTTPException as refused:  # for which TensorFlow has no code
            return _error(refused.status_code, refused.detail)
        except Exception as error:
            # Whatever goes wrong is answered in TensorFlow Serving's form.
            op_error = as_op_error(error)
            code = op_error.error_code
            response = _error(HTTP_STATUS[code], op_error.message)
        if call is not None:
            name = call.spec.name if self.servables.knows(call.spec.name) else "(none)"
            seconds = time.monotonic() - start
            self.metrics.request(name, code_name(code), call.method, "REST", seconds)
        return response

    async def _body(self, request: Request) -> bytes:
        """The whole body; its length is counted as pending until `_finish`."""
        chunks: list[bytes] = []
        length = 0
        try:
            async with asyncio.timeout(self.config.timeout):
                async for chunk in request.stream():
                    chunks.append(chunk)
                    length += len(chunk)
                    self._pending_bytes += len(chunk)
                    self._check_length(length)
                    self._check_room()
        except BaseException as error:
            self._pending_bytes -= length
            match error:
                case TimeoutError():
                    raise HTTPException(
                        408, "The body took too long to arrive."
                    ) from None
                case ClientDisconnect():
                    raise HTTPException(499, "The client has gone.") from None
            raise
        return b"".join(chunks)

    def _check_length(self, length: int) -> None:
        if length > self.config.max_body_bytes:
            raise HTTPException(
                413, f"A body has at most {self.config.max_body_bytes} bytes."
            )

    def _check_room(self) -> None:
        if self._pending_bytes > self.config.max_pending_bytes:
            raise exhausted("Too many bytes are waiting. Try again later.")

    async def _work(self, call: rest.Call, body: bytes, is_packed: bool) -> bytes:
        """Runs a method in a worker's thread."""
        if self._under_way >= self.config.max_queue:
            self._pending_bytes -= len(body)
            raise exhausted(
                f"{self._under_way} requests are under way. Try again later."
            )
        self._under_way += 1
        deadline = time.monotonic() + self.config.timeout
        answer = self._workers.submit(self._run, call, body, is_packed, deadline)
        future = asyncio.wrap_future(answer)
        future.add_done_callback(functools.partial(self._finish, len(body)))
        await asyncio.wait([future], timeout=self.config.timeout + _GRACE)
        if not future.done():
            raise late("Timed out. What was begun could not be interrupted.")
        return future.result()

    def _run(
        self, call: rest.Call, body: bytes, is_packed: bool, deadline: float
    ) -> bytes:
        if is_packed:
            body = self._unpack(body)
        return rest.METHODS[call.method](self.inference, call.spec, body, deadline)

    def _unpack(self, body: bytes) -> bytes:
        """What gzip has packed, as far as it may be read."""
        reader = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        try:
            unpacked = reader.decompress(body, self.config.max_body_bytes + 1)
        except zlib.error as error:
            raise invalid(f"The body must be of gzip. Received: {error}.") from None
        self._check_length(len(unpacked))
        if not reader.eof:
            raise invalid("The body must be of gzip. Received: it ends too early.")
        return unpacked

    def _finish(self, length: int, future: "asyncio.Future[bytes]") -> None:
        self._under_way -= 1
        self._pending_bytes -= length
        if not future.cancelled():
            future.exception()  # seen, also where nobody waits for it any more

    async def _metrics(self, request: Request) -> Response:
        return Response(self.metrics.page(), media_type=metrics.CONTENT_TYPE)

    async def _health(self, request: Request) -> Response:
        return PlainTextResponse("ok")

    async def _readiness(self, request: Request) -> Response:
        if self.servables.is_settled:
            return PlainTextResponse("ok")
        return PlainTextResponse("models are being loaded", 503)


class _RestRoute(BaseRoute):
    """All of /v1/, in letters of either case, by the path as it was sent."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether a request is to this route."""
        is_ours = scope["type"] == "http" and scope["path"][:4].lower() == "/v1/"
        return (Match.FULL if is_ours else Match.NONE), {}

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        """This route has no name."""
        raise NoMatchFound(name, path_params)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        await self._serving.handle(scope, receive, send)


def _error(status: int, message: str) -> Response:
    body = json.dumps({"error": message})
    return Response(body, status, _JSON)
