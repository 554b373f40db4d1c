"""Connections that go to the main process with what it alone answers.

A process serves the connections whose requests are for models. One that asks for
something else is the main process's from then on.
"""

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import Callable
from http import HTTPStatus

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from service.app import MODELS
from service.http_protocol import HttpProtocol
from service.log import log_error

_OWN = tuple(f"{method} {MODELS}".encode() for method in ("POST", "GET"))


class HandingOn(HttpProtocol):
    """Answer requests for models, and hand on a connection that brings another one.

    It is handed on between two requests, together with what has been read of it.

    Attributes:
        handing: Where connections go.
    """

    handing: socket.socket

    _is_arriving = False  # a request, of which something has been parsed
    _ahead = b""  # of what comes next: too little to tell, or before an answer is out

    def data_received(self, data: bytes) -> None:
        """Take bytes; look at those that begin a request."""
        if self._is_arriving:
            super().data_received(data)
            return
        self._ahead += data
        if self.cycle and not self.cycle.response_complete:
            self.flow.pause_reading()
            return
        if any(own.startswith(self._ahead) for own in _OWN):
            return  # until it is known for whom it is
        data, self._ahead = self._ahead, b""
        if data.startswith(_OWN) or not self._hand_on(data):
            super().data_received(data)

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._is_arriving = True

    def on_message_complete(self) -> None:
        """End a request."""
        super().on_message_complete()
        self._is_arriving = False

    def on_response_complete(self) -> None:
        """Go on with what has come before the answer was out."""
        super().on_response_complete()
        if self._ahead and not self.transport.is_closing():
            self.data_received(b"")

    def _hand_on(self, begun: bytes) -> bool:
        """Give the connection to the main process, if its client has read all."""
        if self.transport.get_write_buffer_size():
            return False
        connection = self.transport.get_extra_info("socket")
        try:
            with tempfile.TemporaryFile() as file:
                file.write(begun)
                file.flush()
                files = [connection.fileno(), file.fileno()]
                socket.send_fds(self.handing, [b"."], files, socket.MSG_DONTWAIT)
        except OSError as error:
            log_error("A connection cannot be handed on.", error)
        self.transport.abort()  # here; the other process has it still
        return True


class OnlyModels:
    """Refuse what is not for models, on a connection that could not be handed on.

    Its client has sent a request before it has read the answer to the one before.

    Args:
        app: The application behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or send its client to another connection."""
        if scope["type"] == "http" and not scope["path"].startswith(MODELS):
            answer = JSONResponse(
                {"error": "Send this request on a connection of its own."},
                HTTPStatus.MISDIRECTED_REQUEST,
                {"Connection": "close"},
            )
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)


def take_connections(
    taking: socket.socket, make_protocol: Callable[[], HttpProtocol]
) -> None:
    """Go on with the connections that other processes hand on, in the running loop.

    Args:
        taking: Where they arrive.
        make_protocol: Make the protocol of a connection.
    """
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()
    taking.setblocking(False)

    async def go_on(connection: socket.socket, begun: bytes) -> None:
        def protocol() -> HttpProtocol:
            made = make_protocol()
            made.begun = begun
            return made

        with contextlib.suppress(OSError):  # its client has gone
            await loop.connect_accepted_socket(protocol, connection)

    def take() -> None:
        with contextlib.suppress(OSError):  # there is none, or no room for it
            _, files, _, _ = socket.recv_fds(taking, 1, 2)
            if len(files) != 2:  # this process may not open more
                for each in files:
                    os.close(each)
                return
            connection, begun = files
            with os.fdopen(begun, "rb") as file:
                file.seek(0)
                task = loop.create_task(
                    go_on(socket.socket(fileno=connection), file.read())
                )
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    loop.add_reader(taking, take)
