"""The server: from the options of the command line to HTTP and gRPC."""

import argparse
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
from service.jobs.job_queue import QueueConfig
from service.jobs.trainers import LocalTrainers, Trainers
from service.serving.batching import BatchingParameters, read_batching_parameters
from service.serving.config import ServingConfig
from service.serving.routes import Serving
from training.errors import UserError
from training.run.atomic import check_writable

_GRACE_SECONDS = 10.0
_SECONDS_BETWEEN_LOOKS = 0.1
_IDLE_SECONDS = 75  # clients of TensorFlow Serving keep their connections


def serve(options: argparse.Namespace, token: str | None) -> None:
    """Serves until SIGINT or SIGTERM; what has begun is finished.

    Args:
        options: Those of the command line.
        token: What job calls must show.

    Raises:
        UserError: If a directory, a file or a port cannot be used.
    """
    settings = Settings(
        jobs=None if options.serve_only else _queue_config(options),
        serving=serving_config(options),
        host=options.host,
        token=token,
    )
    serving = Serving(settings.serving)
    app = create_app(settings, serving, lambda: server.should_exit)
    config = uvicorn.Config(
        app,
        http=HttpProtocol,
        access_log=False,
        timeout_keep_alive=_IDLE_SECONDS,
        # Every prediction has its time, but somebody may have stopped reading.
        timeout_graceful_shutdown=math.ceil(options.timeout + _GRACE_SECONDS),
    )
    server = _Server(config)
    _add_page(app, serving, token)
    # After the page, whose import takes seconds: whoever can connect is answered at
    # once. Before any job is started.
    with (
        _listen(options.host, options.port) as listener,
        _grpc(serving, options.host, options.grpc_port) as server.end_grpc,
    ):
        # uvicorn raises the signal that has stopped it once more.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """Ends gRPC before the application, whose end unloads the models.

    Attributes:
        end_grpc: Lets gRPC finish what has begun, and returns what is set then.
    """

    end_grpc: Callable[[], threading.Event]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes no more connections and finishes; a second Ctrl-C ends the waiting."""
        for listener in self.servers:
            listener.close()
        ended = self.end_grpc()
        while not ended.is_set() and not self.force_exit:
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
        await super().shutdown(sockets)


def serving_config(options: argparse.Namespace) -> ServingConfig:
    """How models are served, from the options of the command line.

    Raises:
        UserError: If there is no directory of models, or batching is not set well.
    """
    base = options.model_base_path.absolute()
    if not base.is_dir():
        raise UserError(
            f"`--model-base-path` must be a directory of models. Received: {base}."
        )
    return ServingConfig(
        base,
        options.model_config_file and options.model_config_file.absolute(),
        timeout=options.timeout,
        max_queue=options.max_queue,
        max_body_bytes=options.max_body_bytes,
        batching=_batching(options),
    )


def _batching(options: argparse.Namespace) -> BatchingParameters | None:
    if options.batching_parameters_file is None:
        return BatchingParameters() if options.enable_batching else None
    if not options.enable_batching:
        raise UserError(
            "`--batching-parameters-file` needs `--enable-batching`. "
            f"Received: {options.batching_parameters_file} alone."
        )
    return read_batching_parameters(options.batching_parameters_file)


def _add_page(app: FastAPI, serving: Serving, token: str | None) -> None:
    try:
        from service.page.mount import mount
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        print("No page at /: pip install '.[page]' brings it.", file=sys.stderr)
    else:
        mount(app, app.state.queue, serving, token)


def _queue_config(options: argparse.Namespace) -> QueueConfig:
    exports = options.model_base_path.absolute()
    check_writable(exports, "--model-base-path")
    return QueueConfig(
        state_dir=options.state_dir.absolute(),
        exports=exports,
        data_roots=tuple(path.absolute() for path in options.data_root),
        slots=options.slots,
        retries=options.retries,
        trainers=_trainers(options),
    )


def _trainers(options: argparse.Namespace) -> Trainers:
    if options.executor == "local":
        return LocalTrainers()
    try:
        from service.jobs.ray_trainers import RayTrainers
    except ModuleNotFoundError as error:
        raise UserError(
            "`--executor ray` needs Ray. Install it with: pip install '.[ray]'."
        ) from error
    return RayTrainers(options.ray_address)


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
    """Runs the gRPC server, where its stubs are installed; yields what ends it."""
    try:
        from service.serving.grpc_server import GrpcServer
    except ModuleNotFoundError as error:
        if error.name not in ("grpc", "tensorflow_serving"):
            raise
        print("No gRPC: pip install '.[grpc]' brings it.", file=sys.stderr)
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
