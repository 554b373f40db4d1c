"""The command line: `python -m service`."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from service.jobs.trainers import SHARED_METRICS
from service.options import ServiceOptions
from service.security import is_loopback
from training.cli.command_line import TOKEN, token_of_environment
from training.cli.quiet import importing, start_tensorflow
from training.errors import UserError


def main() -> int:
    """Serve until told to stop.

    Returns:
        The exit status: 0, or 2 for a mistake of the user's.
    """
    try:
        options = ServiceOptions.read(sys.argv[1:])
        token = token_of_environment()
        if token is None and not options.serve_only and not is_loopback(options.host):
            raise UserError(
                f"`--host {options.host}` can be reached from other machines, which "
                f"must show a token to submit jobs. Set {TOKEN} to a long random word, "
                "or give `--serve-only`."
            )
        # Predictions leave the memory of the GPUs to the trainers.
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        # Here, so that --help and a wrong option answer without waiting for TensorFlow.
        start_tensorflow()
        with _shared_directory(options.serving_processes) as shared:
            with importing():
                from service.server import serve

            serve(options, token, shared)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


@contextlib.contextmanager
def _shared_directory(processes: int) -> Iterator[Path | None]:
    """Make a directory for what several processes share, the metrics among it.

    prometheus_client must be told when it is imported.
    """
    if processes == 1:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="kerasnorm-") as directory:
        os.environ[SHARED_METRICS] = directory
        yield Path(directory)


if __name__ == "__main__":
    sys.exit(main())
