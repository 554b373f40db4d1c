"""TensorFlow Serving's REST API over HTTP, as one route of an ASGI application."""

import functools
import json
import time
from pathlib import Path
from typing import Any

import tensorflow as tf
from starlette.datastructures import URLPath
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Match, NoMatchFound, Route
from starlette.types import Message, Receive, Scope, Send

from service.serving import heaps, metrics, rest
from service.serving.config import ServingConfig
from service.serving.errors import answered, code_name, http_status, shown
from service.serving.inference import Inference
from service.serving.servables import Servables
from service.serving.workers import Workers

_JSON = {"content-type": "application/json"}
SMALL_ANSWER = 2**16
"""The bytes of an answer that takes no room while it waits for its reader."""


class Serving:
    """The models, and the threads that answer requests for predictions.

    Args:
        config: How models are served.
        servables: The models; those that the config names if not given.
        shared_metrics: The directory where several processes count.

    Raises:
        UserError: If the model config file is not usable.
    """

    def __init__(
        self,
        config: ServingConfig,
        servables: Servables | None = None,
        shared_metrics: Path | None = None,
    ) -> None:
        heaps.limit()
        self.config = config
        self.metrics = metrics.Metrics(shared_metrics)
        self.servables = servables or Servables.of(config)
        self.workers = Workers(config)
        self.inference = Inference(
            self.servables, self.metrics, self.workers.room, config.max_body_bytes
        )

    @property
    def routes(self) -> list[BaseRoute]:
        """The routes of an application: all of /v1/ that has no route before them."""
        return [
            Route(metrics.PATH, self._metrics),
            Route("/healthz", self._health),
            Route("/readyz", self._readiness),
            _RestRoute(self),
        ]

    def start(self) -> None:
        """Begin to load models."""
        self.servables.start()

    def stop(self) -> None:
        """Finish the requests under way, then unload the models."""
        self.workers.stop()
        self.servables.stop()

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request to /v1/, as an ASGI application."""
        response = await self.answer(Request(scope, receive))
        size = len(response.body)
        if size <= SMALL_ANSWER:
            await response(scope, receive, send)
            return
        try:
            with self.workers.answers.keep(size):
                await response(scope, receive, _until_read(send))
        except tf.errors.ResourceExhaustedError as error:
            await _error(http_status(error), shown(error))(scope, receive, send)

    async def answer(self, request: Request) -> Response:
        """Answer a request to /v1/."""
        start = time.monotonic()
        path = request.scope.get("raw_path") or request.url.path.encode()
        call = None
        try:
            call = rest.parse_call(request.method, path.decode("latin-1"))
            if call.method in rest.METHODS:
                body = await self.workers.read_body(request)
                start = time.monotonic()
                method = rest.METHODS[call.method]
                work = functools.partial(method, self.inference, call.spec)
                is_packed = (
                    "gzip" in request.headers.get("content-encoding", "").lower()
                )
                answer = await self.workers.run(work, body, is_packed)
            elif call.method == "metadata":
                answer = rest.metadata(self.inference, call.spec)
            else:
                answer = rest.status(self.inference, call.spec)
            response, code = Response(answer, 200, _JSON), tf.errors.OK
        except HTTPException as refused:  # for which TensorFlow has no code
            return _error(refused.status_code, refused.detail)
        except Exception as error:
            # Every other error is answered in TensorFlow Serving's form.
            op_error = answered(error)
            code = op_error.error_code
            response = _error(http_status(op_error), shown(op_error))
        if call is not None:
            name = call.spec.name if self.servables.knows(call.spec.name) else "(none)"
            seconds = time.monotonic() - start
            self.metrics.request(name, code_name(code), call.method, "REST", seconds)
        return response

    async def _metrics(self, request: Request) -> Response:
        return Response(self.metrics.page(), media_type=metrics.CONTENT_TYPE)

    async def _health(self, request: Request) -> Response:
        return PlainTextResponse("ok")

    async def _readiness(self, request: Request) -> Response:
        if not self.servables.is_settled:
            return PlainTextResponse("models are being loaded", 503)
        if missing := self.servables.missing:
            message = f"no version can be served of: {', '.join(missing)}"
            return PlainTextResponse(message, 503)
        return PlainTextResponse("ok")


class _RestRoute(BaseRoute):
    """All of /v1/, in letters of either case, by the path as it was sent."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether a request is to this route."""
        is_ours = scope["type"] == "http" and scope["path"][:4].lower() == "/v1/"
        return (Match.FULL if is_ours else Match.NONE), {}

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        """Raise `NoMatchFound`, since this route has no name."""
        raise NoMatchFound(name, path_params)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self._serving.handle(scope, receive, send)


def _until_read(send: Send) -> Send:
    """Return a `send` that waits until the client has read nearly all of a body."""

    async def send_and_wait(message: Message) -> None:
        if message["type"] == "http.response.body":
            await send({**message, "more_body": True})
            message = {"type": "http.response.body"}  # sent when there is room for it
        await send(message)

    return send_and_wait


def _error(status: int, message: str) -> Response:
    body = json.dumps({"error": message})
    return Response(body, status, _JSON)
