"""The command line: `python -m service`."""

import argparse
import logging
import os
import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from service.app import Settings, create_app
from service.security import is_loopback
from service.trainers import LocalTrainers, Trainers
from training.command_line import TOKEN
from training.config import REPOSITORY
from training.errors import UserError

_EXAMPLES = """
examples:
  python -m service                         jobs on this machine, for this machine
  python -m service --slots 2               two jobs at a time
  KERASNORM_TOKEN=... python -m service --host 0.0.0.0

  curl -H 'Content-Type: application/json' -d '{"model": "mlp"}' localhost:8501/v1/jobs
  python train.py --submit http://localhost:8501 --model mlp

The page is at http://localhost:8501, the API is described at
http://localhost:8501/docs.
"""


def main() -> int:
    """Serves until it is told to stop.

    Returns:
        The exit status: 0, or 2 for a mistake of the user's.
    """
    options = _parser().parse_args()
    # As for train.py: before TensorFlow and Keras are imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    token = os.environ.get(TOKEN) or None
    try:
        if not is_loopback(options.host) and token is None:
            raise UserError(
                f"`--host {options.host}` can be reached from other machines, which "
                f"must show a token. Set {TOKEN} to a long random word."
            )
        _serve(options, token)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _serve(options: argparse.Namespace, token: str | None) -> None:
    settings = Settings(
        state_dir=options.state_dir.absolute(),
        exports=options.model_base_path.absolute(),
        host=options.host,
        data_roots=tuple(path.absolute() for path in options.data_root),
        token=token,
        trainers=_trainers(options),
        slots=options.slots,
        retries=options.retries,
        max_body_bytes=options.max_body_bytes,
    )
    app = create_app(settings, lambda: server.should_exit)
    server = uvicorn.Server(
        uvicorn.Config(app, options.host, options.port, access_log=False)
    )
    _add_page(app, token)
    server.run()


def _add_page(app: FastAPI, token: str | None) -> None:
    try:
        from service import page
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        logging.getLogger("uvicorn.error").info(
            "There is no page at / without Gradio. Install it: pip install '.[page]'."
        )
    else:
        page.mount(app, token)


def _trainers(options: argparse.Namespace) -> Trainers:
    if options.executor == "local":
        return LocalTrainers()
    try:
        from service.ray_trainers import RayTrainers
    except ModuleNotFoundError as error:
        raise UserError(
            "`--executor ray` needs Ray. Install it with: pip install '.[ray]'."
        ) from error
    return RayTrainers(options.ray_address)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1. Received: {number}.")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m service",
        description="Train and serve over HTTP.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="listen here; default: 127.0.0.1")
    add("--port", type=int, default=8501, help="of HTTP; default: 8501")
    add(
        "--model-base-path",
        type=Path,
        default=REPOSITORY / "saved_models",
        metavar="DIR",
        help="jobs export their models here; default: saved_models",
    )
    add(
        "--state-dir",
        type=Path,
        default=REPOSITORY / "service_state",
        metavar="DIR",
        help="jobs and runs are kept here; default: service_state",
    )
    add(
        "--data-root",
        type=Path,
        action="append",
        default=[REPOSITORY / "datasets"],
        metavar="DIR",
        help="jobs may take archives, prepared data and pictures from here; can be "
        "given several times; besides: datasets",
    )
    add(
        "--executor",
        choices=["local", "ray"],
        default="local",
        help="run jobs on this machine or on a Ray cluster; default: local",
    )
    add(
        "--ray-address",
        default="http://127.0.0.1:8265",
        metavar="URL",
        help="the dashboard of the Ray cluster; default: http://127.0.0.1:8265",
    )
    add("--slots", type=_positive, default=1, help="jobs at a time; default: 1")
    add(
        "--retries",
        type=int,
        default=3,
        help="how often a trainer that died is started again before its job has "
        "failed; a finished epoch sets the count back; default: 3",
    )
    add(
        "--max-body-bytes",
        type=_positive,
        default=2**26,
        metavar="N",
        help="the largest body of a request; default: 67108864",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
