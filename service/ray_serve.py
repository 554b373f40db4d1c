"""The models on a Ray cluster: `python -m service.ray_serve`."""

import argparse
import signal
import sys
import threading

from service.command_line import add_serving_options, port, positive
from training.cli.quiet import start_tensorflow
from training.errors import UserError

_EXAMPLES = """
examples:
  python -m service.ray_serve                                a Ray of its own, here
  python -m service.ray_serve --address HEAD:6379 --min-replicas 2 --max-replicas 16

The machines of the cluster share a file system with this repository, its Python and
the models, at the same paths. Ctrl-C takes the models down again.
"""
_SECONDS_TO_LOAD = 600.0


def main() -> int:
    """Serves until it is told to stop.

    Returns:
        The exit status: 0, or 2 for a mistake of the user's.
    """
    options = _parser().parse_args()
    try:
        if options.max_replicas < options.min_replicas:
            raise UserError(
                "`--max-replicas` must be at least `--min-replicas`. "
                f"Received: {options.max_replicas}, {options.min_replicas}."
            )
        # Here, so that --help answers without waiting for TensorFlow and Ray.
        start_tensorflow()
        _serve(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _serve(options: argparse.Namespace) -> None:
    """Deploys the application of `python -m service --serve-only`."""
    try:
        from ray import serve
    except ImportError as error:
        raise UserError(
            f"Ray Serve is needed: pip install '.[ray]'. Received: {error}."
        ) from error
    from fastapi import FastAPI

    from service.app import Settings, create_app
    from service.server import serving_config
    from service.serving.routes import Serving
    from training import ray_workers

    settings = Settings(serving_config(options), host=options.host)

    class LoadedServing(Serving):
        """A replica gets requests once it has started: not before it has models."""

        def start(self) -> None:
            super().start()
            self.servables.wait_until_settled(_SECONDS_TO_LOAD)

    def application() -> FastAPI:
        return create_app(settings, LoadedServing(settings.serving))

    deployment = serve.deployment(
        serve.ingress(application)(),
        name="models",
        autoscaling_config={
            "min_replicas": options.min_replicas,
            "max_replicas": options.max_replicas,
        },
        max_queued_requests=options.max_queue,
    )
    ray_workers.connect(options.address, "--address")
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    serve.start(
        proxy_location="EveryNode",
        http_options={"host": options.host, "port": options.port},
    )
    try:
        serve.run(deployment.bind(), name="kerasnorm", route_prefix="/")
        stopped.wait()
    finally:
        serve.shutdown()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m service.ray_serve",
        description="Serve models with Ray Serve, by as many replicas as are needed.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--address",
        default="local",
        metavar="HOST:PORT",
        help="the Ray cluster; auto: the one of this machine; default: a new one",
    )
    add("--host", default="127.0.0.1", help="listen here; default: 127.0.0.1")
    add(
        "--port",
        type=port,
        default=8501,
        help="of HTTP, on each machine; default: 8501",
    )
    add("--min-replicas", type=positive, default=1, metavar="N", help="default: 1")
    add(
        "--max-replicas",
        type=positive,
        default=4,
        metavar="N",
        help="Ray adds replicas while requests wait; default: 4",
    )
    add_serving_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
