"""The command line: `python -m service`."""

import os
import sys

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
        with importing():
            from service.server import serve

        serve(options, token)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
