"""Pictures and starts of train.py, shared by the tests."""

import gzip
import os
import re
import shutil
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

# A process in the background ignores SIGINT, and so would all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--screenshots", metavar="DIR", help="keep pictures of the page in DIR"
    )


# They take the longest. Where several workers share the tests, none of these is begun
# when the other workers have nothing left to do.
FIRST = (
    "tests/service/page/test_browser.py",
    "tests/training/test_job.py",
    "tests/service/jobs/test_disturbed_jobs.py",
    "tests/service/test_main.py",
    "tests/test_train.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    items.sort(key=lambda item: not item.nodeid.startswith(FIRST))


def made_once(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]
) -> Path:
    """Return a directory that the first of the workers to need it has filled."""
    from filelock import FileLock

    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # that of all workers
    place, is_made = base / name, base / f"{name}.made"
    with FileLock(base / f"{name}.lock"):
        if not is_made.exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            make(place)
            is_made.touch()
    return place


@dataclass(frozen=True)
class Run:
    """A finished `train.py` and where it has written."""

    process: subprocess.CompletedProcess[str]
    runs: Path
    exports: Path


def resume_hint(text: str) -> str:
    """Return the last command that train.py has given to go on with."""
    hints: list[str] = re.findall(r"[Gg]o on with: (.+)$", text, re.MULTILINE)
    return hints[-1]


@pytest.fixture(scope="session")
def fashion_mnist() -> Callable[[str], tuple[np.ndarray, np.ndarray]]:
    """Read the images and labels of a split from the archives without TFDS."""

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
    """Start train.py in a process of its own, in another directory than its own."""

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
    """Run train.py to its end."""

    def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        with train_py(*arguments, cwd=cwd) as process:
            out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return run


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
    _save_pictures(root, 600, *fashion_mnist("train"))
    return root


@pytest.fixture(scope="session")
def few_pictures(
    tmp_path_factory: pytest.TempPathFactory,
    fashion_mnist: Callable[[str], tuple[np.ndarray, np.ndarray]],
) -> Path:
    """The first hundred of `pictures`, for tests that need no more."""

    def make(place: Path) -> None:
        _save_pictures(place / "fashion", 100, *fashion_mnist("train"))

    return made_once(tmp_path_factory, "few", make) / "fashion"


def _save_pictures(
    root: Path, number: int, images: np.ndarray, labels: np.ndarray
) -> None:
    for index in range(number):
        shown = (labels[index] + (index % 2) * (1 + index % 7)) % 10
        directory = root / f"class{shown}"
        directory.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[index, ..., 0]).save(directory / f"{index:03}.png")
