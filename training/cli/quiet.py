"""Start TensorFlow without its messages."""

import contextlib
import gc
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import absl.logging

# The function that knows TensorFlow 1's and 2's models alike is called deprecated.
_ADVICE = "load (from tensorflow.python.saved_model.loader_impl) is deprecated"


def start_tensorflow() -> None:
    """Import TensorFlow and Keras, and let them log errors only."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # no message for each retry
    os.environ["KERAS_BACKEND"] = "tensorflow"
    with _silent_standard_error(), importing():
        import keras  # noqa: F401
        import tensorflow as tf

        tf.config.list_physical_devices()  # prints what it finds
    # TFDS warns of what it then repairs itself, TensorFlow of how models are loaded.
    absl.logging.set_verbosity(absl.logging.ERROR)
    logging.getLogger("tensorflow").addFilter(_is_no_advice)


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Look for no garbage among the many objects that an import makes.

    With TensorFlow a fifth of its time would go there.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _is_no_advice(record: logging.LogRecord) -> bool:
    return _ADVICE not in record.getMessage()


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
