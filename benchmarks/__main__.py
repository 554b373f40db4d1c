"""`python -m benchmarks layers|models|inference|scaling [--backend BACKEND]`."""

import argparse
import importlib
import os
import sys
from pathlib import Path

from training.errors import UserError

BENCHMARKS = {
    "layers": "layers",
    "models": "networks",
    "inference": "inference",
    "scaling": "scaling",
}
"""The name of each benchmark, and of the module that runs it."""

BACKENDS = ("tensorflow", "jax", "torch")
DEFAULT_OUTPUT = Path(__file__).parent.parent / "runs" / "benchmarks"


def main() -> None:
    """Run the benchmark that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("benchmark", choices=BENCHMARKS)
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default=os.environ.get("KERAS_BACKEND", "tensorflow"),
        help="Keras's backend (default: KERAS_BACKEND, else tensorflow)",
    )
    parser.add_argument("--quick", action="store_true", help="fewer cases, less time")
    parser.add_argument(
        "--output",
        type=Path,
        default=DEFAULT_OUTPUT,
        metavar="DIR",
        help="where the JSON, the tables and the picture go (default: %(default)s)",
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="how long each timing may wait for other processes (default: %(default)s)",
    )
    arguments = parser.parse_args()
    if arguments.backend not in BACKENDS:
        parser.error(
            f"KERAS_BACKEND must be one of {', '.join(BACKENDS)}. Received: "
            f"{arguments.backend!r}. Set it, or give --backend."
        )
    # Keras reads it once, when it is imported.
    os.environ["KERAS_BACKEND"] = arguments.backend
    from benchmarks.report import report
    from benchmarks.timing import environment

    module = importlib.import_module(f"benchmarks.{BENCHMARKS[arguments.benchmark]}")
    try:
        measured = module.run(arguments.quick, arguments.patience)
    except UserError as error:
        sys.exit(f"error: {error}")
    results = {
        "environment": {"backend": arguments.backend, **environment()},
        **measured,
    }
    backend = "" if arguments.backend == "tensorflow" else arguments.backend
    report(arguments.benchmark, results, arguments.output / backend)


if __name__ == "__main__":
    main()
