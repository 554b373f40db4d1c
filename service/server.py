"""The server: from the options of the command line to HTTP and gRPC."""

import asyncio
import contextlib
import math
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from service.app import Settings, create_app
from service.http_protocol import HttpProtocol
from service.options import ServiceOptions
from service.processes.connections import take_connections
from service.processes.leading import Crew
from service.processes.messages import Orders
from service.processes.sharing import share_port, share_the_machine
from service.serving.config import ServingConfig
from service.serving.routes import Serving
from service.serving.servables import Servables
from training.errors import UserError

GRACE_SECONDS = 10.0
_SECONDS_BETWEEN_LOOKS = 0.1
_IDLE_SECONDS = 75  # clients of TensorFlow Serving keep their connections


def serve(
    options: ServiceOptions, token: str | None, shared: Path | None = None
) -> None:
    """Serve until SIGINT or SIGTERM, then finish what has begun.

    Args:
        options: The options of the command line.
        token: What job calls must show.
        shared: The directory that several processes share; `None` for one process.

    Raises:
        UserError: If a directory, a file or a port cannot be used.
    """
    crew = None if shared is None else Crew(shared, options.serving_processes - 1)
    if crew is not None:
        share_the_machine(options.serving_processes)
    settings = Settings(
        jobs=None if options.serve_only else options.queue(options.model_base_path),
        serving=options.serving(),
        host=options.host,
        token=token,
    )
    servables = Servables.of(settings.serving, crew)
    serving = Serving(settings.serving, servables, shared)
    app = create_app(settings, serving, lambda: server.should_exit)
    server = Server(server_config(app, options, HttpProtocol))
    server.crew = crew
    add_page(app, serving, token)
    # The page comes first: its import takes seconds, and whoever can connect must be
    # answered at once. No job has been started yet.
    with (
        listen(options.host, options.port) as listener,
        _led(crew, listener, options, settings.serving) as grpc_port,
        grpc(serving, options.host, grpc_port, crew is not None) as server.end_grpc,
    ):
        run(server, listener)


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


@contextlib.contextmanager
def _led(
    crew: Crew | None,
    listener: socket.socket,
    options: ServiceOptions,
    serving: ServingConfig,
) -> Iterator[int]:
    """Have the other processes listen on the same ports, if there are others.

    Yields:
        The port of gRPC.
    """
    if crew is None:
        yield options.grpc_port
        return
    with _bind(options.host, options.grpc_port) as reserved:
        ports = {"port": share_port(listener), "grpc_port": share_port(reserved)}
        crew.start(Orders(options.model_copy(update=ports), serving, crew.directory))
        try:
            yield ports["grpc_port"]
        finally:
            crew.end()


class Server(uvicorn.Server):
    """Say where it answers, and end gRPC before the application, which unloads models.

    Attributes:
        end_grpc: Ask gRPC to finish what has begun; return an event that is set then.
        crew: The other processes, if any.
    """

    end_grpc: Callable[[], threading.Event]
    crew: Crew | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so when requests are answered."""
        await super().startup(sockets)
        if self.started:
            await self.say_ready()

    async def say_ready(self) -> None:
        """Print the address, once all processes answer."""
        listener = next(s for each in self.servers for s in each.sockets)
        if self.crew is not None:
            take_connections(self.crew.taking, self._make_protocol)
            while not self.crew.is_answering and not self.should_exit:
                await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
            if self.should_exit:
                return
        print(f"Ready: {_url(listener.getsockname())}", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listeners, and wait for gRPC and the other processes.

        A second Ctrl-C ends the waiting.
        """
        for listener in self.servers:
            listener.close()
        ended = self.end_grpc()
        if self.crew is not None:
            self.crew.stop()
        while not (ended.is_set() and self._others_have_ended) and not self.force_exit:
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
        await super().shutdown(sockets)

    @property
    def _others_have_ended(self) -> bool:
        return self.crew is None or self.crew.has_ended

    def _make_protocol(self) -> HttpProtocol:
        """Make the protocol of a connection, as `uvicorn.Server.startup` does."""
        return HttpProtocol(self.config, self.server_state, self.lifespan.state)


def _url(address: tuple[str, int]) -> str:
    host, port, *_ = address
    if host in ("127.0.0.1", "::1"):
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def add_page(app: FastAPI, serving: Serving, token: str | None) -> None:
    """Put the page at `/` if Gradio is installed."""
    try:
        from service.page.mount import mount
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        print("No page at /: pip install --group serve brings it.", file=sys.stderr)
    else:
        mount(app, app.state.queue, serving, token)


def listen(host: str, port: int, is_shared: bool = False) -> socket.socket:
    """Return a socket that listens; several processes may share its port.

    Raises:
        UserError: If this machine cannot listen there.
    """
    try:
        return socket.create_server(
            (host, port), family=_family(host), reuse_port=is_shared
        )
    except OSError as error:
        raise UserError(
            "`--host` and `--port` must be an address where this machine can listen. "
            f"Received: {host}, {port}: {error}."
        ) from error


def _bind(host: str, port: int) -> socket.socket:
    """Return a socket that keeps a port of gRPC and does not listen."""
    kept = socket.socket(_family(host))
    try:
        kept.bind((host, port))
    except OSError as error:
        kept.close()
        raise UserError(
            "`--host` and `--grpc-port` must be an address that is free here. "
            f"Received: {host}, {port}: {error}."
        ) from error
    return kept


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


@contextlib.contextmanager
def grpc(
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
