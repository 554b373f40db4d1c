"""The models on a Ray cluster: `python -m service.ray_serve`."""

import signal
import sys
import threading
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import SettingsConfigDict

from service.command_line import CLI, CommandLine, Positive, named
from service.options import Listening, ServingOptions
from training.cli.quiet import start_tensorflow
from training.errors import UserError

_SECONDS_TO_LOAD = 600.0


class Cluster(BaseModel):
    """The Ray cluster that models are served on."""

    model_config = ConfigDict(title="the Ray cluster")

    address: str = Field(
        "local",
        description="of the cluster; auto: the one of this machine; local: a new one",
        json_schema_extra=named("HOST:PORT"),
    )
    min_replicas: Positive = Field(
        1, description="keep N replicas at least", json_schema_extra=named("N")
    )
    max_replicas: Positive = Field(
        4,
        description="let Ray add replicas while requests wait, up to N",
        json_schema_extra=named("N"),
    )

    @model_validator(mode="after")
    def _least_and_most(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(
                "`--max-replicas` must be at least `--min-replicas`. "
                f"Received: {self.max_replicas}, {self.min_replicas}."
            )
        return self


class RayServeOptions(ServingOptions, Cluster, Listening, CommandLine):
    """Serve models with Ray Serve, by as many replicas as are needed.

    examples:
      python -m service.ray_serve                                a Ray of its own, here
      python -m service.ray_serve --address HEAD:6379 --min-replicas 2 --max-replicas 16

    The machines of the cluster share a file system with this repository, its Python
    and the models, at the same paths. Ctrl-C takes the models down again.
    """

    model_config = CLI | SettingsConfigDict(cli_prog_name="python -m service.ray_serve")


def main() -> int:
    """Serve until told to stop.

    Returns:
        The exit status: 0, or 2 for a mistake of the user's.
    """
    try:
        options = RayServeOptions.read(sys.argv[1:])
        # Here, so that --help answers without waiting for TensorFlow and Ray.
        start_tensorflow()
        _serve(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _serve(options: RayServeOptions) -> None:
    """Deploy the application of `python -m service --serve-only`."""
    try:
        from ray import serve
    except ImportError as error:
        raise UserError(
            f"Ray Serve is needed: pip install --group ray. Received: {error}."
        ) from error
    from fastapi import FastAPI

    from service.app import Settings, create_app
    from service.serving.routes import Serving
    from training import ray_workers

    settings = Settings(options.serving(), host=options.host)

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


if __name__ == "__main__":
    sys.exit(main())
