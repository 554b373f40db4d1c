"""HTTP by uvicorn and httptools, with limits to heads and without HTTP/2."""

import asyncio
import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_OFFER = re.compile(rb"\r\nupgrade:[ \t]*h2c", re.IGNORECASE)


class HttpProtocol(HttpToolsProtocol):
    """Close a connection if the head of a request is too long or too slow.

    The head is the request line and the headers. What stands around the chunks of a
    body has the same limit, and is not kept. A connection also ends if its client does
    not read what it is sent, or sends many requests without waiting for answers.

    Attributes:
        most_bytes: The largest head.
        most_waiting: The most requests that may wait for the answer to an earlier one.
        seconds: The longest that a head may take to arrive, and that a client may read
            nothing. A new connection may take as long to begin.
        begun: What another process has read of the connection.
    """

    most_bytes = 2**16
    most_waiting = 100
    seconds = 60.0
    begun = b""

    _fed = 0  # bytes since the last of a body, or since the last head ended
    _length = 0  # bytes of this head, as far as it is parsed
    _deadline: asyncio.TimerHandle | None = None
    _look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._wait()
        if self.begun:
            self.data_received(self.begun)

    def data_received(self, data: bytes) -> None:
        """Take bytes, no more of a head at once than it may have."""
        if b"h2c" in data and not (self.cycle and self.cycle.more_body):
            data = _without_offer(data)
        for start in range(0, len(data), self.most_bytes):
            part = data[start : start + self.most_bytes]
            self._fed += len(part)
            super().data_received(part)
            if self._fed > self.most_bytes:
                self._refuse()
            if len(self.pipeline) > self.most_waiting:
                self.pipeline.clear()
                self.transport.abort()
            if self.transport.is_closing():
                return

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self._length = len(b"GET  HTTP/1.1\r\n\r\n")
        self._wait()

    def on_url(self, url: bytes) -> None:
        """Take a part of the request line."""
        super().on_url(url)
        self._length += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; one that comes after the body is passed over."""
        if self._deadline is not None:
            super().on_header(name, value)
            self._length += len(name) + len(value) + len(": \r\n")

    def on_headers_complete(self) -> None:
        """End a head."""
        self._end_waiting()
        self._fed = 0
        if self._length > self.most_bytes:
            self._refuse()
            return
        super().on_headers_complete()
        # uvicorn would end the connection after every answer to HTTP/1.0.
        if self.cycle and self.cycle.scope is self.scope:
            self.cycle.keep_alive = self.parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._fed = 0
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        self._fed = 0
        if not self.transport.is_closing():
            super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._end_waiting()
        self._end_looking()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Begin to look whether the client reads."""
        super().pause_writing()
        self._look_again()

    def resume_writing(self) -> None:
        """Stop looking: the client has read nearly all."""
        super().resume_writing()
        self._end_looking()

    def _look_again(self) -> None:
        unread = self.transport.get_write_buffer_size()

        def look() -> None:
            if self.transport.get_write_buffer_size() >= unread:
                self.transport.abort()
            else:
                self._look_again()

        self._end_looking()
        self._look = self.loop.call_later(self.seconds, look)

    def _end_looking(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _refuse(self) -> None:
        if not self.transport.is_closing():
            self._end_waiting()
            self.send_400_response(
                f"The head of a request has at most {self.most_bytes} bytes."
            )

    def _wait(self) -> None:
        if self._deadline is None:
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
