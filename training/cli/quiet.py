"""TensorFlow without the messages of its start."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from absl import logging


def start_tensorflow() -> None:
    """Imports TensorFlow and Keras; warnings from then on only where it matters."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # else it tells each retry
    os.environ["KERAS_BACKEND"] = "tensorflow"
    with _silent_standard_error():
        import tensorflow as tf

        tf.config.list_physical_devices()  # looks for a GPU, and says so
    # TFDS warns of what it is about to mend, TensorFlow of how models are loaded.
    logging.set_verbosity(logging.ERROR)


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
