"""The command line: `python -m service`."""

import argparse
import os
import sys
from pathlib import Path

from service.command_line import add_serving_options, count, port, positive
from service.security import is_loopback
from training.cli.command_line import TOKEN
from training.cli.quiet import start_tensorflow
from training.config import REPOSITORY
from training.errors import UserError

_EXAMPLES = """
examples:
  python -m service                         jobs and models, for this machine
  python -m service --serve-only            the models alone
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
    token = os.environ.get(TOKEN) or None
    try:
        runs_jobs = not options.serve_only
        if runs_jobs and token is None and not is_loopback(options.host):
            raise UserError(
                f"`--host {options.host}` can be reached from other machines, which "
                f"must show a token to submit jobs. Set {TOKEN} to a long random word, "
                "or give `--serve-only`."
            )
        # Here, so that --help and a wrong option answer without waiting for TensorFlow.
        start_tensorflow()
        from service.server import serve

        serve(options, token)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m service",
        description="Train and serve over HTTP.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="listen here; default: 127.0.0.1")
    add("--port", type=port, default=8501, help="of HTTP; default: 8501")
    add("--grpc-port", type=port, default=8500, help="of gRPC; default: 8500")
    add(
        "--serve-only",
        action="store_true",
        help="serve the models that are there; run no jobs",
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
    add("--slots", type=positive, default=1, help="jobs at a time; default: 1")
    add(
        "--retries",
        type=count,
        default=3,
        help="how often a trainer that died is started again before its job has "
        "failed; a finished epoch sets the count back; default: 3",
    )
    add_serving_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
