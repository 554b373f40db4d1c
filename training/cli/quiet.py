"""Start TensorFlow without its messages."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from absl import logging


def start_tensorflow() -> None:
    """Import TensorFlow and Keras, and let them log errors only."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # no message for each retry
    os.environ["KERAS_BACKEND"] = "tensorflow"
    with _silent_standard_error():
        import tensorflow as tf

        tf.config.list_physical_devices()  # prints what it finds
    # TFDS warns of what it then repairs itself, TensorFlow of how models are loaded.
    logging.set_verbosity(logging.ERROR)


@contextlib.contextmanager
def _silent_standard_error() -> Iterator[None]:
    """Drop what TensorFlow's libraries print before they read their logging level."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
