"""The server: from the options of the command line to HTTP and gRPC."""

import asyncio
import contextlib
import math
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

import uvicorn
from fastapi import FastAPI

from service.app import Settings, create_app
from service.http_protocol import HttpProtocol
from service.options import ServiceOptions
from service.serving.routes import Serving
from training.errors import UserError

_GRACE_SECONDS = 10.0
_SECONDS_BETWEEN_LOOKS = 0.1
_IDLE_SECONDS = 75  # clients of TensorFlow Serving keep their connections


def serve(options: ServiceOptions, token: str | None) -> None:
    """Serve until SIGINT or SIGTERM, then finish what has begun.

    Args:
        options: The options of the command line.
        token: What job calls must show.

    Raises:
        UserError: If a directory, a file or a port cannot be used.
    """
    settings = Settings(
        jobs=None if options.serve_only else options.queue(options.model_base_path),
        serving=options.serving(),
        host=options.host,
        token=token,
    )
    serving = Serving(settings.serving)
    app = create_app(settings, serving, lambda: server.should_exit)
    config = uvicorn.Config(
        app,
        http=HttpProtocol,
        access_log=False,
        # uvicorn would believe every caller on loopback, and FORWARDED_ALLOW_IPS.
        proxy_headers=bool(options.trusted_proxy),
        forwarded_allow_ips=list(options.trusted_proxy),
        timeout_keep_alive=_IDLE_SECONDS,
        # A prediction ends in time, but its client may have stopped reading.
        timeout_graceful_shutdown=math.ceil(options.timeout + _GRACE_SECONDS),
    )
    server = Server(config)
    add_page(app, serving, token)
    # The page comes first: its import takes seconds, and whoever can connect must be
    # answered at once. No job has been started yet.
    with (
        _listen(options.host, options.port) as listener,
        _grpc(serving, options.host, options.grpc_port) as server.end_grpc,
    ):
        # uvicorn raises the signal that has stopped it again at its end.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        server.run(sockets=[listener])


class Server(uvicorn.Server):
    """Say where it answers, and end gRPC before the application, which unloads models.

    Attributes:
        end_grpc: Ask gRPC to finish what has begun; return an event that is set then.
    """

    end_grpc: Callable[[], threading.Event]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and print the address when requests are answered."""
        await super().startup(sockets)
        if self.started:
            listener = next(s for each in self.servers for s in each.sockets)
            print(f"Ready: {_url(listener.getsockname())}", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listeners and wait for gRPC; a second Ctrl-C ends the waiting."""
        for listener in self.servers:
            listener.close()
        ended = self.end_grpc()
        while not ended.is_set() and not self.force_exit:
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
        await super().shutdown(sockets)


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


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(
            "`--host` and `--port` must be an address where this machine can listen. "
            f"Received: {host}, {port}: {error}."
        ) from error


@contextlib.contextmanager
def _grpc(
    serving: Serving, host: str, port: int
) -> Iterator[Callable[[], threading.Event]]:
    """Run the gRPC server if its stubs are installed; yield a function that ends it."""
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
    server = GrpcServer(
        serving, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    )
    server.start()
    try:
        yield lambda: server.stop(serving.config.timeout + _GRACE_SECONDS)
    finally:
        server.stop(0).wait()
