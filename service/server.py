"""The server: from the options of the command line to HTTP and gRPC."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from service.app import Settings, create_app
from service.http_protocol import HttpProtocol
from service.listening import (
    SECONDS_BETWEEN_LOOKS,
    Server,
    family_of,
    listen,
    listen_to_grpc,
    run,
    server_config,
)
from service.options import ServiceOptions
from service.processes.connections import take_connections
from service.processes.leading import Crew
from service.processes.messages import Orders
from service.processes.sharing import share_port, share_the_machine
from service.serving.config import ServingConfig
from service.serving.routes import Serving
from service.serving.servables import Servables
from training.errors import UserError


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
    config = server_config(app, options, HttpProtocol)
    server = Server(config) if crew is None else _LeadingServer(config, crew)
    add_page(app, serving, token)
    # The page comes first: its import takes seconds, and whoever can connect must be
    # answered at once. No job has been started yet.
    with (
        listen(options.host, options.port) as listener,
        _led(crew, listener, options, settings.serving) as grpc_port,
        listen_to_grpc(
            serving, options.host, grpc_port, is_shared=crew is not None
        ) as server.end_grpc,
    ):
        run(server, listener)


class _LeadingServer(Server):
    """The server of the main process, which begins and ends with the others.

    Args:
        config: How HTTP is served.
        crew: The other processes.
    """

    def __init__(self, config: uvicorn.Config, crew: Crew) -> None:
        super().__init__(config)
        self._crew = crew

    async def say_ready(self) -> None:
        """Print the address once all processes answer."""
        take_connections(self._crew.taking, self._make_protocol)
        while not self._crew.is_answering and not self.should_exit:
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
        if not self.should_exit:
            await super().say_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let all processes finish what has begun, which needs the models."""
        for listener in self.servers:
            listener.close()
        self.end_grpc()
        self._crew.stop()
        while not self._crew.has_ended and not self.force_exit:
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
        await super().shutdown(sockets)

    def _make_protocol(self) -> HttpProtocol:
        """Make the protocol of a connection, as `uvicorn.Server.startup` does."""
        return HttpProtocol(self.config, self.server_state, self.lifespan.state)


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
        try:
            crew.start(
                Orders(options.model_copy(update=ports), serving, crew.directory)
            )
            yield ports["grpc_port"]
        finally:
            crew.end()


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


def _bind(host: str, port: int) -> socket.socket:
    """Return a socket that keeps a port of gRPC and does not listen."""
    kept = socket.socket(family_of(host))
    kept.setsockopt(
        socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
    )  # soon after another's end
    try:
        kept.bind((host, port))
    except OSError as error:
        kept.close()
        raise UserError(
            "`--host` and `--grpc-port` must be an address that is free here. "
            f"Received: {host}, {port}: {error}."
        ) from error
    return kept
