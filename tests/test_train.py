"""The command line from an empty data directory to an exported model."""

import csv
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import kerasnorm  # noqa: F401  (registers the layers)
from tests.conftest import REPOSITORY, Run, resume_hint
from training.report import evaluation, pictures

Split = Callable[[str], tuple[np.ndarray, np.ndarray]]


def test_the_run_directory_holds_all_that_is_promised(finished: Run) -> None:
    (run,) = finished.runs.iterdir()
    assert run.name == "mlp-fashion_mnist"
    shown = {path.name for path in run.iterdir() if not path.name.startswith(".")}
    assert shown == {
        *("config.json", "result.json", "history.csv", "progress.json"),
        *("logs", "checkpoints"),
        *("model.keras", "curves.png", "confusion.png", "mistakes.png"),
    }
    assert list((run / "logs").rglob("events.out.tfevents.*"))
    assert json.loads((run / "config.json").read_text())["epochs"] == 1
    (row,) = csv.DictReader((run / "history.csv").read_text().splitlines())
    assert row["epoch"] == "1"
    assert 0.5 < float(row["val_accuracy"]) < 1
    for name in ("curves", "confusion", "mistakes"):
        with Image.open(run / f"{name}.png") as image:
            assert min(image.size) > 400
            pixels = np.asarray(image.convert("L"))
        assert (pixels < 128).mean() > 0.005  # something has been drawn


def test_the_result_is_the_accuracy_on_the_test_archive(
    finished: Run, fashion_mnist: Split
) -> None:
    run = finished.runs / "mlp-fashion_mnist"
    result = json.loads((run / "result.json").read_text())
    model = keras.models.load_model(run / "model.keras")
    images, labels = fashion_mnist("test")
    logits = model.predict(images, batch_size=1000, verbose=0).astype(np.float64)
    accuracy = (logits.argmax(axis=1) == labels).mean()
    log_sum = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1))
    loss = (log_sum + logits.max(1) - logits[np.arange(len(labels)), labels]).mean()
    # Two of 10,000 images may change sides with the size of the batch.
    assert result["metrics"]["test"]["accuracy"] == pytest.approx(accuracy, abs=2e-4)
    assert result["metrics"]["test"]["loss"] == pytest.approx(loss, rel=1e-4)
    assert accuracy > 0.84
    assert result["export"] == str(finished.exports / "mlp-fashion_mnist" / "1")


def test_what_the_user_reads(finished: Run) -> None:
    text = finished.process.stdout
    resume = shlex.split(resume_hint(text))
    assert resume[-2:] == ["--resume", "runs/mlp-fashion_mnist"]
    assert "57,000 train, 3,000 validation, 10,000 test images of 28x28x1" in text
    assert "Preparing fashion_mnist from" in text
    for split in ("train", "validation", "test"):
        assert f"│ {split}" in text
    assert "\r" not in text  # no progress bar: the output is no terminal
    assert "\x1b" not in text
    assert finished.process.stderr == ""


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_an_interruption_says_how_to_go_on(
    train_py: Callable[..., subprocess.Popen[str]],
    pictures: Path,
    tmp_path: Path,
    number: signal.Signals,
    status: int,
) -> None:
    with train_py(
        *("--model", "mlp", "--dataset", f"folder:{pictures}", "--epochs", 1000),
        *("--run-dir", "my runs", "--export-dir", "exports", "--name", "long"),
        cwd=tmp_path,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("Epoch 3/"):
                break
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == status
    last = out.splitlines()[-1]
    assert last.startswith("Interrupted. Go on with: ")
    assert shlex.split(resume_hint(last))[-2:] == ["--resume", "my runs/long"]
    assert err == ""
    assert not (tmp_path / "my runs/long/result.json").exists()


@pytest.mark.parametrize("seconds", [0.1, 1.0, 1.5, 2.0, 3.0])
def test_no_import_swallows_a_signal(
    train_py: Callable[..., subprocess.Popen[str]],
    pictures: Path,
    tmp_path: Path,
    seconds: float,
) -> None:
    """Some imports take a KeyboardInterrupt for an error of their own and go on."""
    with train_py(
        *("--model", "mlp", "--dataset", f"folder:{pictures}", "--epochs", 1000),
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


def test_a_name_is_never_used_twice(
    run_train_py: Callable[..., subprocess.CompletedProcess[str]],
    pictures: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "runs" / "twice").mkdir(parents=True)
    (tmp_path / "runs" / "twice" / "kept").touch()
    process = run_train_py(
        *("--model", "mlp", "--dataset", f"folder:{pictures}", "--epochs", 1),
        *("--run-dir", "runs", "--export-dir", "exports", "--name", "twice"),
        *("--no-norm", "--max-norm", 3, "--image-size", 14, "--batch-size", 7),
        cwd=tmp_path,
    )
    assert process.returncode == 0, process.stderr
    assert [p.name for p in (tmp_path / "runs" / "twice").iterdir()] == ["kept"]
    assert (tmp_path / "runs" / "twice-2" / "result.json").exists()
    assert (tmp_path / "exports" / "twice" / "1" / "saved_model.pb").exists()


@pytest.mark.parametrize("option", ["--run-dir", "--export-dir"])
def test_an_unwritable_directory_is_named_before_training(
    run_train_py: Callable[..., subprocess.CompletedProcess[str]],
    pictures: Path,
    tmp_path: Path,
    option: str,
) -> None:
    (tmp_path / "file").touch()
    process = run_train_py(
        *("--dataset", f"folder:{pictures}", "--run-dir", "r", "--export-dir", "e"),
        *(option, "file/below"),
        cwd=tmp_path,
    )
    assert process.returncode == 2
    assert process.stdout == ""
    assert process.stderr.startswith(f"error: `{option}` must be a directory that can")
    assert process.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "name",
    [
        "fashion-mnist",
        "foo bar",
        "a:b:c",
        "huggingface:mnist",
    ],
)
def test_an_unusable_dataset_is_one_line_and_leaves_nothing(
    run_train_py: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    name: str,
) -> None:
    process = run_train_py(
        *("--dataset", name, "--data-dir", "d", "--run-dir", "r", "--export-dir", "e"),
        cwd=tmp_path,
    )
    assert process.returncode == 2
    assert process.stderr.startswith(f"error: `--dataset` {name} ")
    assert process.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    assert process.stdout == ""


def test_the_worst_mistakes_are_the_most_confident_ones() -> None:
    true = np.array([0, 1, 2, 0])
    probabilities = np.array(
        [[0.9, 0.1, 0.0], [0.6, 0.3, 0.1], [0.05, 0.95, 0.0], [0.2, 0.4, 0.4]]
    )
    assert pictures.worst_mistakes(true, probabilities).tolist() == [2, 1, 3]
    counts = pictures.confusion_matrix(true, probabilities.argmax(axis=1), 3)
    assert counts.tolist() == [[1, 1, 0], [1, 0, 0], [0, 1, 0]]


def test_images_are_picked_by_their_index() -> None:
    images = np.arange(10)[:, None] * np.ones((1, 3), np.uint8)
    batches = tf.data.Dataset.from_tensor_slices((images, np.zeros(10))).batch(4)
    for indices in ([9, 0, 4, 3], []):
        picked = evaluation.pick(batches, np.array(indices, int))
        assert [image.tolist() for image in picked] == [[i] * 3 for i in indices]


def test_pictures_are_drawn_for_a_hundred_classes_and_for_no_mistake(
    tmp_path: Path,
) -> None:
    labels = [f"quite a long name {index}" for index in range(100)]
    pictures.draw_confusion(np.eye(100, dtype=int), labels, tmp_path / "confusion.png")
    nothing = np.zeros((0, 100))
    pictures.draw_mistakes(
        [], nothing[:, 0], nothing, labels, tmp_path / "mistakes.png"
    )
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            assert max(image.size) < 4000
