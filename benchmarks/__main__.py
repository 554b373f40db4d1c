"""`python -m benchmarks layers|models|inference|scaling`."""

import argparse
from pathlib import Path

from benchmarks import inference, layers, networks, scaling
from benchmarks.report import report
from benchmarks.timing import environment

BENCHMARKS = {
    "layers": layers.run,
    "models": networks.run,
    "inference": inference.run,
    "scaling": scaling.run,
}
DEFAULT_OUTPUT = Path(__file__).parent.parent / "runs" / "benchmarks"


def main() -> None:
    """Run the benchmark that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("benchmark", choices=BENCHMARKS)
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
    run = BENCHMARKS[arguments.benchmark]
    results = {
        "environment": environment(),
        **run(arguments.quick, arguments.patience),
    }
    report(arguments.benchmark, results, arguments.output)


if __name__ == "__main__":
    main()
