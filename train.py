"""Trains an image classifier and exports it as a SavedModel: see --help."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from absl import logging

from training import ray_cluster
from training.command_line import CommandLine, read, resumed
from training.errors import UserError
from training.submit import submit


class Terminated(KeyboardInterrupt):
    """SIGTERM, handled as Ctrl-C is."""


def main() -> int:
    """Runs one job.

    Returns:
        The exit status: 0, 1 for a submitted job that has not succeeded, 2 for a
        mistake of the user's, 128 + signal for an interruption.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        options = read(sys.argv[1:])
        if options.submit is not None:
            return 0 if submit(options.submit, options.job()) else 1
        _train(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Terminated:
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def _train(options: CommandLine) -> None:
    config = options.job()
    if options.resume is not None:
        config = resumed(options.resume, config)
    if options.ray is not None and options.workers is not None:
        ray_cluster.train(config, options.resume, options.ray, options.workers)
        return
    # Here, so that --help and a wrong option answer without waiting for TensorFlow.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    with _silent_standard_error():
        import tensorflow as tf

        tf.config.list_physical_devices()  # looks for a GPU, and says so
    # TFDS warns of what it is about to mend.
    logging.set_verbosity(logging.ERROR)
    from training import loop

    if options.resume is None:
        loop.train(config)
    else:
        loop.resume(options.resume, config)


@contextlib.contextmanager
def _silent_standard_error() -> Iterator[None]:
    """For what TensorFlow's libraries say before they read their logging level."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise Terminated


if __name__ == "__main__":
    sys.exit(main())
