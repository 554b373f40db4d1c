"""Which of TensorFlow's messages are dropped."""

import logging

import pytest

from training.cli.quiet import start_tensorflow


def test_of_its_warnings_only_one_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """The first load of a model would print it, though nothing is wrong."""
    start_tensorflow()
    logger = logging.getLogger("tensorflow")
    advice = "load (from tensorflow.python.saved_model.loader_impl) is deprecated"
    with caplog.at_level("WARNING", "tensorflow"):
        logger.addHandler(caplog.handler)
        logger.warning("From %s: %s and will be removed.", "signatures.py", advice)
        logger.warning("Something else is deprecated.")
        logger.removeHandler(caplog.handler)
    messages = {record.getMessage() for record in caplog.records}
    assert messages == {"Something else is deprecated."}
