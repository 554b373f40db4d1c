"""How a process listens to HTTP and gRPC, and how it ends."""

import asyncio
import contextlib
import math
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from service.http_protocol import HttpProtocol
from service.options import ServiceOptions
from service.serving.routes import Serving
from training.errors import UserError

GRACE_SECONDS = 10.0
"""How long a client has to read its answer when the service ends."""

SECONDS_BETWEEN_LOOKS = 0.1
_IDLE_SECONDS = 75  # clients of TensorFlow Serving keep their connections


class Server(uvicorn.Server):
    """Say where it answers, and end gRPC before the application, which unloads models.

    Attributes:
        end_grpc: Ask gRPC to finish what has begun; return an event that is set then.
    """

    end_grpc: Callable[[], threading.Event]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so when requests are answered."""
        await super().startup(sockets)
        if self.started:
            await self.say_ready()

    async def say_ready(self) -> None:
        """Print the address."""
        listener = next(s for each in self.servers for s in each.sockets)
        print(f"Ready: {_url(listener.getsockname())}", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listeners and wait for gRPC; a second Ctrl-C ends the waiting."""
        for listener in self.servers:
            listener.close()
        ended = self.end_grpc()
        while not ended.is_set() and not self.force_exit:
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
        await super().shutdown(sockets)


def _url(address: tuple[str, int]) -> str:
    host, port, *_ = address
    if host in ("127.0.0.1", "::1"):
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def server_config(
    app: ASGIApp, options: ServiceOptions, protocol: type[HttpProtocol], **more: Any
) -> uvicorn.Config:
    """Return how HTTP is served.

    Args:
        app: The application.
        options: The options of the command line.
        protocol: How connections are read.
        more: Further arguments of `uvicorn.Config`.
    """
    return uvicorn.Config(
        app,
        http=protocol,
        access_log=False,
        # uvicorn would believe every caller on loopback, and FORWARDED_ALLOW_IPS.
        proxy_headers=bool(options.trusted_proxy),
        forwarded_allow_ips=list(options.trusted_proxy),
        timeout_keep_alive=_IDLE_SECONDS,
        # A prediction ends in time, but its client may have stopped reading.
        timeout_graceful_shutdown=math.ceil(options.timeout + GRACE_SECONDS),
        **more,
    )


def run(server: uvicorn.Server, listener: socket.socket) -> None:
    """Run a server until a signal stops it."""
    # uvicorn raises the signal that has stopped it again at its end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    server.run(sockets=[listener])


def listen(host: str, port: int, is_shared: bool = False) -> socket.socket:
    """Return a socket that listens; several processes may share its port.

    Raises:
        UserError: If this machine cannot listen there.
    """
    try:
        return socket.create_server(
            (host, port), family=family_of(host), reuse_port=is_shared
        )
    except OSError as error:
        raise UserError(
            "`--host` and `--port` must be an address where this machine can listen. "
            f"Received: {host}, {port}: {error}."
        ) from error


def family_of(host: str) -> socket.AddressFamily:
    """Return the family of an address."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


@contextlib.contextmanager
def listen_to_grpc(
    serving: Serving, host: str, port: int, is_shared: bool = False
) -> Iterator[Callable[[], threading.Event]]:
    """Run the gRPC server if its stubs are installed; yield a function that ends it.

    Several processes may share its port.
    """
    try:
        from service.serving.grpc_server import GrpcServer
    except ModuleNotFoundError as error:
        if error.name not in ("grpc", "tensorflow_serving"):
            raise
        print("No gRPC: pip install --group serve brings it.", file=sys.stderr)
        ended = threading.Event()
        ended.set()
        yield lambda: ended
        return
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    server = GrpcServer(serving, address, is_shared)
    server.start()
    try:
        yield lambda: server.stop(serving.config.timeout + GRACE_SECONDS)
    finally:
        server.stop(0).wait()
