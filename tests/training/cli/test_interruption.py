"""SIGINT and SIGTERM end the process, wherever they come."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.training.runs import Start


@pytest.mark.parametrize("seconds", [0.1, 1.5, 3.0])
def test_no_import_swallows_a_signal(
    train_py: Start,
    few_pictures: Path,
    tmp_path: Path,
    seconds: float,
) -> None:
    """Some imports take a KeyboardInterrupt for an error of their own and go on."""
    with train_py(
        *("--model", "mlp", "--dataset", f"folder:{few_pictures}", "--epochs", 1000),
        cwd=tmp_path,
    ) as process:
        time.sleep(seconds)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)
    assert "Traceback" not in err


# What becomes of about three signals in a hundred while TensorFlow traces a model.
TURNED_INTO_AN_ERROR = """
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        raise SystemError("returned a result with an exception set")
"""
DROPPED = """
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        time.sleep(60)
"""
DROPPED_AT_THE_END = """
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        pass
"""
SENT_TWICE = """
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        try:
            signal.raise_signal(signal.SIGINT)
        except BaseException:
            time.sleep(60)
"""
WITHOUT_READERS = """
    read, write = os.pipe()
    os.close(read)
    os.dup2(write, 1)
    signal.raise_signal(signal.SIGTERM)
"""
IGNORED = """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interruption.release_signals()
    interruption.take_signals()
    signal.raise_signal(signal.SIGINT)
"""


@pytest.mark.parametrize(
    ("body", "status", "output"),
    [
        (TURNED_INTO_AN_ERROR, 128 + signal.SIGTERM, "\nThe last line\n"),
        (DROPPED, -signal.SIGALRM, "\nThe last line\n"),
        (DROPPED_AT_THE_END, 128 + signal.SIGTERM, "\nThe last line\n"),
        (SENT_TWICE, 128 + signal.SIGINT, "\nThe last line\n"),
        (WITHOUT_READERS, 128 + signal.SIGTERM, ""),
        (IGNORED, 0, ""),
    ],
)
def test_a_signal_ends_the_process_whatever_becomes_of_its_exception(
    body: str, status: int, output: str
) -> None:
    program = f"""
import os, signal, sys, time, train
from training.cli import interruption
interruption.SECONDS_TO_END = 1
def training_that_is_interrupted(options):
    interruption.say_when_interrupted("The last line")
{body}
train.run_job = training_that_is_interrupted
sys.exit(train.main())
"""
    process = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == status
    assert process.stdout == output
    assert process.stderr == ""
