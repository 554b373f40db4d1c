"""HTTP by uvicorn and httptools, with limits to heads and without HTTP/2."""

import asyncio
import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_OFFER = re.compile(rb"\r\nupgrade:[ \t]*h2c", re.IGNORECASE)


class HttpProtocol(HttpToolsProtocol):
    """Close a connection if the head of a request is too long or too slow.

    The head is the request line and the headers.

    Attributes:
        most_bytes: The largest head.
        seconds: The longest that a head may take to arrive. A new connection may take
            as long to begin.
    """

    most_bytes = 2**16
    seconds = 60.0

    _bytes = 0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take bytes, and count those of a head."""
        if b"h2c" in data and not (self.cycle and self.cycle.more_body):
            data = _without_offer(data)
        super().data_received(data)
        if self._deadline is not None:
            self._bytes += len(data)
            if self._bytes > self.most_bytes:
                self._end_waiting()
                self.send_400_response(
                    f"The head of a request has at most {self.most_bytes} bytes."
                )

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self._wait()

    def on_headers_complete(self) -> None:
        """End a head."""
        self._end_waiting()
        super().on_headers_complete()
        # uvicorn would end the connection after every answer to HTTP/1.0.
        if self.cycle and self.cycle.scope is self.scope:
            self.cycle.keep_alive = self.parser.should_keep_alive()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._end_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._deadline is None:
            self._bytes = 0
            self._deadline = self.loop.call_later(self.seconds, self.transport.close)

    def _end_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class KeepAlive:
    """Say to a client of HTTP/1.0 whether its connection stays open.

    Only one that asks for it keeps its connection, and only after an answer whose end
    it can see from its length.

    Args:
        app: The application behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http" or scope["http_version"] != "1.0":
            await self._app(scope, receive, send)
            return

        asked = ",".join(Headers(scope=scope).getlist("connection")).lower().split(",")
        is_asked = "keep-alive" in map(str.strip, asked)

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                is_kept = is_asked and "content-length" in headers
                headers["Connection"] = "keep-alive" if is_kept else "close"
            await send(message)

        await self._app(scope, receive, sent)


def _without_offer(data: bytes) -> bytes:
    """Return a request without the offer to go on with HTTP/2.

    Java's client makes it. httptools would take the offer for an agreement, and the
    body for HTTP/2.
    """
    head, blank, rest = data.partition(b"\r\n\r\n")
    return _OFFER.sub(b"\r\nx-upgrade: h2c", head) + blank + rest
