"""The command line from the archives of Fashion-MNIST to an exported model.

This is the only run on a whole dataset: the others take a hundred pictures.
"""

import csv
import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Callable
from subprocess import CompletedProcess

import keras
import numpy as np
import pytest
from PIL import Image

import kerasnorm  # noqa: F401  (registers the layers)
from tests.conftest import ARCHIVES, Run, resume_hint
from training.config import TrainConfig
from training.data.pipeline import load

Split = Callable[[str], tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def real(
    tmp_path_factory: pytest.TempPathFactory,
    run_train_py: Callable[..., CompletedProcess[str]],
) -> Run:
    """One epoch of the MLP on all of Fashion-MNIST, beginning with no prepared data."""
    root = tmp_path_factory.mktemp("real")
    # What TFDS has extracted from another set's archive of the same name.
    stale = root / "data" / "downloads" / "extracted"
    stale.mkdir(parents=True)
    for archive in ARCHIVES.glob("*.gz"):
        (stale / f"GZIP.{archive.name}").write_bytes(b"another set's images")
    process = run_train_py(
        *("--model", "mlp", "--epochs", 1, "--data-dir", "data"),
        *("--run-dir", "runs", "--export-dir", "exports"),
        cwd=root,
    )
    assert process.returncode == 0, process.stderr
    return Run(process, root / "runs", root / "exports")


def test_the_run_directory_holds_all_that_is_promised(real: Run) -> None:
    (run,) = real.runs.iterdir()
    assert run.name == "mlp-fashion_mnist"
    shown = {path.name for path in run.iterdir() if not path.name.startswith(".")}
    assert shown == {
        *("config.json", "result.json", "history.csv", "progress.json"),
        *("logs", "checkpoints"),
        *("model.keras", "curves.png", "confusion.png", "mistakes.png"),
        "reliability.png",
    }
    assert list((run / "logs").rglob("events.out.tfevents.*"))
    assert json.loads((run / "config.json").read_text())["epochs"] == 1
    (row,) = csv.DictReader((run / "history.csv").read_text().splitlines())
    assert row["epoch"] == "1"
    assert 0.5 < float(row["val_accuracy"]) < 1
    for name in ("curves", "confusion", "mistakes", "reliability"):
        with Image.open(run / f"{name}.png") as image:
            assert min(image.size) > 400
            pixels = np.asarray(image.convert("L"))
        assert (pixels < 128).mean() > 0.005  # something has been drawn


def test_the_result_is_the_accuracy_on_the_test_archive(
    real: Run, fashion_mnist: Split
) -> None:
    run = real.runs / "mlp-fashion_mnist"
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
    assert result["export"] == str(real.exports / "mlp-fashion_mnist" / "1")


def test_what_the_user_reads(real: Run) -> None:
    text = real.process.stdout
    resume = shlex.split(resume_hint(text))
    assert resume[-2:] == ["--resume", "runs/mlp-fashion_mnist"]
    assert "57,000 train, 3,000 validation, 10,000 test images of 28x28x1" in text
    assert "Preparing fashion_mnist from" in text
    for split in ("train", "validation", "test"):
        assert f"│ {split}" in text
    assert "\r" not in text  # no progress bar: the output is no terminal
    assert "\x1b" not in text
    assert real.process.stderr == ""


def counted(images: np.ndarray, labels: np.ndarray) -> Counter[tuple[bytes, int]]:
    pairs = zip(images, labels, strict=True)
    return Counter((hashlib.md5(i.tobytes()).digest(), int(k)) for i, k in pairs)


def test_every_image_of_the_archives_is_in_one_split(
    real: Run, fashion_mnist: Split
) -> None:
    data = load(TrainConfig(data_dir=real.runs.parent / "data"))
    found = {}
    for split in ("train", "validation", "test"):
        batches = data.batches(split, 1000).as_numpy_iterator()
        images, labels = zip(*batches, strict=True)
        found[split] = counted(np.concatenate(images), np.concatenate(labels))
    assert found["train"] + found["validation"] == counted(*fashion_mnist("train"))
    assert found["test"] == counted(*fashion_mnist("test"))
    assert data.sizes == {"train": 57000, "validation": 3000, "test": 10000}
    assert data.notes == ("validation: 3000 images split off from train",)
