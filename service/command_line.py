"""Options that the commands of the service share."""

import argparse
import math
from pathlib import Path

from training.config import REPOSITORY


def add_serving_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of how models are served."""
    add = parser.add_argument
    add(
        "--model-base-path",
        type=Path,
        default=REPOSITORY / "saved_models",
        metavar="DIR",
        help="the models: jobs export to it, predictions come from it; default: "
        "saved_models",
    )
    add(
        "--model-config-file",
        type=Path,
        metavar="FILE",
        help="TensorFlow Serving's file of models, version policies and labels; "
        "default: every model below --model-base-path, its latest version",
    )
    add(
        "--enable-batching",
        action="store_true",
        help="let TensorFlow run requests that come together as one batch",
    )
    add(
        "--batching-parameters-file",
        type=Path,
        metavar="FILE",
        help="TensorFlow Serving's file of how to batch, with --enable-batching; "
        "default: its defaults",
    )
    add(
        "--timeout",
        type=_seconds,
        default=30.0,
        metavar="SECONDS",
        help="the longest that a prediction may take; default: 30",
    )
    add(
        "--max-queue",
        type=positive,
        default=256,
        metavar="N",
        help="predictions under way; more are told to come again; default: 256",
    )
    add(
        "--max-body-bytes",
        type=positive,
        default=2**26,
        metavar="N",
        help="the largest body of a prediction; default: 67108864",
    )


def positive(text: str) -> int:
    """The type of an option that counts something: 1 or more."""
    return _at_least(1, text)


def port(text: str) -> int:
    """The type of an option that is a port; 0 takes a free one."""
    number = int(text)
    if not 0 <= number < 2**16:
        raise argparse.ArgumentTypeError(
            f"must be between 0 and 65535. Received: {text}."
        )
    return number


def _seconds(text: str) -> float:
    """The type of an option that is a time."""
    seconds = float(text)
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be more than 0. Received: {text}.")
    return seconds


def count(text: str) -> int:
    """The type of an option that may count nothing: 0 or more."""
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    number = int(text)
    if number < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}. Received: {text}.")
    return number
