"""Fashion-MNIST's archives as arrays, for the examples."""

import gzip
from pathlib import Path

import numpy as np

ARCHIVES = Path(__file__).resolve().parent.parent / "datasets" / "fashion_mnist"


def read(
    split: str, count: int, archives: Path = ARCHIVES
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first images, (count, 28, 28, 1), and labels of "train" or "t10k"."""
    with gzip.open(archives / f"{split}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(16 + 784 * count), np.uint8, offset=16)
    with gzip.open(archives / f"{split}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(8 + count), np.uint8, offset=8)
    return images.reshape(-1, 28, 28, 1), labels
