"""`python -m experiments list|run|keep|report|figures`."""

import argparse
import os
import sys
from pathlib import Path

# Networks this small are fastest on one core; run two processes for two.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from training.cli.quiet import start_tensorflow
from training.errors import UserError
from training.options.values import REPOSITORY

STORES = REPOSITORY / "runs" / "experiments"
RESULTS = REPOSITORY / "docs" / "results"
PAGE = REPOSITORY / "docs" / "results.md"


def main() -> int:
    """Do what the command line says; return the exit status."""
    arguments = _parser().parse_args()
    start_tensorflow()
    try:
        arguments.command(arguments)
    except UserError as error:
        print(f"python -m experiments: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from here.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments",
        description="The claims of the two papers, run and judged.",
    )
    commands = parser.add_subparsers(required=True)
    listing = commands.add_parser("list", help="the claims")
    listing.set_defaults(command=_list)
    run = commands.add_parser(
        "run",
        help="run experiments; one that was stopped goes on where it stopped",
    )
    run.add_argument("names", nargs="+", metavar="NAME", help="as in `list`, or all")
    run.add_argument(
        "--quick",
        action="store_true",
        help="small sizes, to see that it runs; shows nothing about the claim",
    )
    run.add_argument(
        "--archives",
        type=Path,
        metavar="DIR",
        help="MNIST's original archives; default: TFDS fetches them",
    )
    run.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help=f"where the results go (default: {RESULTS.relative_to(REPOSITORY)}, and "
        f"{STORES.relative_to(REPOSITORY)}/quick/results with --quick)",
    )
    run.add_argument(
        "--from-results",
        action="store_true",
        help="begin with the measurements in docs/results/NAME.json",
    )
    run.set_defaults(command=_run)
    keep = commands.add_parser(
        "keep", help="write down what a stopped full run has measured, as unfinished"
    )
    keep.add_argument("names", nargs="+", metavar="NAME", help="as in `list`")
    keep.set_defaults(command=_keep)
    report = commands.add_parser(
        "report", help="make docs/results.md of the results of full runs"
    )
    report.set_defaults(command=_report)
    figures = commands.add_parser("figures", help="draw the guide's figures anew")
    figures.add_argument(
        "names", nargs="*", metavar="NAME", help="as the files are called; default: all"
    )
    figures.add_argument(
        "--output", type=Path, metavar="DIR", help="default: docs/figures/guide"
    )
    figures.set_defaults(command=_figures)
    return parser


def _list(arguments: argparse.Namespace) -> None:
    from experiments.registry import EXPERIMENTS

    for experiment in EXPERIMENTS.values():
        print(f"{experiment.name:12} {experiment.claim} ({experiment.source})")


def _run(arguments: argparse.Namespace) -> None:
    _use_one_thread()
    from experiments.registry import EXPERIMENTS
    from experiments.results import carry_out, go_on

    names = list(EXPERIMENTS) if arguments.names == ["all"] else arguments.names
    _check_names(names, [*EXPERIMENTS, "all"])
    if arguments.quick and arguments.from_results:
        raise UserError("`--quick` and `--from-results` exclude each other.")
    stores = STORES / "quick" if arguments.quick else STORES
    output = arguments.output or (stores / "results" if arguments.quick else RESULTS)
    if arguments.from_results:
        go_on([EXPERIMENTS[name] for name in names], stores, RESULTS)
    for name in names:
        print(
            carry_out(
                EXPERIMENTS[name], arguments.quick, arguments.archives, stores, output
            ),
            flush=True,
        )


def _keep(arguments: argparse.Namespace) -> None:
    from experiments.registry import EXPERIMENTS
    from experiments.results import keep

    _check_names(arguments.names, [*EXPERIMENTS])
    for name in arguments.names:
        print(keep(EXPERIMENTS[name], STORES, RESULTS))


def _report(arguments: argparse.Namespace) -> None:
    from experiments.registry import EXPERIMENTS
    from experiments.report import page, read_results

    PAGE.write_text(page(EXPERIMENTS, read_results(RESULTS)), encoding="utf-8")
    print(PAGE.relative_to(REPOSITORY))


def _figures(arguments: argparse.Namespace) -> None:
    _use_one_thread()
    from experiments.figures import FIGURES, OUTPUT, main

    if unknown := [name for name in arguments.names if name not in FIGURES]:
        raise UserError(
            f"NAME must be one of {', '.join(FIGURES)}. Received: {', '.join(unknown)}."
        )
    main(arguments.output or OUTPUT, arguments.names)


def _check_names(names: list[str], known: list[str]) -> None:
    if unknown := [name for name in names if name not in known]:
        raise UserError(
            f"NAME must be one of {', '.join(known[:-1])} or {known[-1]}. "
            f"Received: {', '.join(unknown)}."
        )


def _use_one_thread() -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


if __name__ == "__main__":
    sys.exit(main())
