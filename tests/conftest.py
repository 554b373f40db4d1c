"""Real data and one real run, shared by the tests of training."""

import gzip
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).resolve().parent.parent
ARCHIVES = REPOSITORY / "datasets" / "fashion_mnist"

# Tests started in the background ignore it, and so would all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--screenshots", metavar="DIR", help="keep pictures of the page in DIR"
    )


@dataclass(frozen=True)
class Run:
    """A finished `train.py` and where it has written."""

    process: subprocess.CompletedProcess[str]
    runs: Path
    exports: Path
    data_dir: Path


def resume_hint(text: str) -> str:
    """The last command that train.py has given to go on with."""
    return re.findall(r"[Gg]o on with: (.+)$", text, re.MULTILINE)[-1]


@pytest.fixture(scope="session")
def fashion_mnist() -> Callable[[str], tuple[np.ndarray, np.ndarray]]:
    """The images and labels of a split, read from the archives without TFDS."""

    def read(split: str) -> tuple[np.ndarray, np.ndarray]:
        prefix = {"train": "train", "test": "t10k"}[split]
        images = gzip.decompress(
            (ARCHIVES / f"{prefix}-images-idx3-ubyte.gz").read_bytes()
        )
        labels = gzip.decompress(
            (ARCHIVES / f"{prefix}-labels-idx1-ubyte.gz").read_bytes()
        )
        return (
            np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28, 1),
            np.frombuffer(labels, np.uint8, offset=8),
        )

    return read


@pytest.fixture(scope="session")
def train_py() -> Callable[..., subprocess.Popen[str]]:
    """Starts train.py in a process of its own, in a directory that is not its own."""

    def start(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(REPOSITORY / "train.py"), *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture(scope="session")
def run_train_py(
    train_py: Callable[..., subprocess.Popen[str]],
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs train.py to its end."""

    def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        with train_py(*arguments, cwd=cwd) as process:
            out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return run


@pytest.fixture(scope="session")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
    run_train_py: Callable[..., subprocess.CompletedProcess[str]],
) -> Run:
    """One epoch of the MLP on all of Fashion-MNIST, beginning with no prepared data."""
    root = tmp_path_factory.mktemp("finished")
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
    return Run(process, root / "runs", root / "exports", root / "data")


@pytest.fixture(scope="session")
def pictures(
    tmp_path_factory: pytest.TempPathFactory,
    fashion_mnist: Callable[[str], tuple[np.ndarray, np.ndarray]],
) -> Path:
    """A folder of 600 Fashion-MNIST pictures by class; every second label is wrong.

    With wrong labels the validation loss soon rises again, so that the best epoch is
    not the last one.
    """
    root = tmp_path_factory.mktemp("pictures") / "fashion"
    images, labels = fashion_mnist("train")
    for index, (image, label) in enumerate(zip(images[:600], labels, strict=False)):
        shown = (label + (index % 2) * (1 + index % 7)) % 10
        directory = root / f"class{shown}"
        directory.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(directory / f"{index:03}.png")
    return root
