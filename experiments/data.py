"""MNIST and Fashion-MNIST as arrays in memory."""

import functools
import gzip
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from training.config import TrainConfig
from training.data.archives import own_directory
from training.data.pipeline import SPLITS, load

VALIDATION_SHARE = 1 / 6  # 10,000 of the 60,000 training images


@dataclass(frozen=True, eq=False)
class Split:
    """Images, uint8 of shape (samples, 28, 28, 1), and labels, int32."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, size: int, seed: int) -> "Split":
        """Return `size` examples chosen at random; the same seed chooses the same."""
        chosen = np.random.default_rng((seed, 1)).permutation(len(self))[:size]
        return Split(self.images[chosen], self.labels[chosen])

    def first(self, size: int) -> "Split":
        """Return the first `size` examples."""
        return Split(self.images[:size], self.labels[:size])

    def second_half(self) -> "Split":
        """Return the second half: of validation, pilots have looked at the first."""
        start = len(self) // 2
        return Split(self.images[start:], self.labels[start:])

    def binarized(self) -> "Split":
        """Return the images in black and white: 255 above the middle, else 0."""
        return replace(self, images=np.uint8(255) * (self.images > 127))


@dataclass(frozen=True)
class Splits:
    """The three parts of a dataset."""

    train: Split
    validation: Split
    test: Split


@functools.lru_cache(maxsize=2)
def load_splits(dataset: str, archives: Path | None) -> Splits:
    """Load all of a dataset: 50,000, 10,000 and 10,000 images.

    Args:
        dataset: `"mnist"` or `"fashion_mnist"`.
        archives: A directory with MNIST's original archives. With `None` TFDS
            downloads them. Fashion-MNIST's archives lie in the repository.
    """
    options = {
        "dataset": dataset,
        "validation_split": VALIDATION_SHARE,
        "archives": archives if dataset == "mnist" else None,
    }
    data = load(TrainConfig.model_validate(options))
    return Splits(*(_in_memory(data.splits[name].batch(10_000)) for name in SPLITS))


def first_of_archive(part: str, count: int) -> Split:
    """Return the first examples of Fashion-MNIST, in the order of its archives.

    Args:
        part: `"train"` or `"t10k"`.
        count: How many.
    """
    archives = own_directory("fashion_mnist")
    with gzip.open(archives / f"{part}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(16 + 784 * count), np.uint8, offset=16)
    with gzip.open(archives / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(8 + count), np.uint8, offset=8)
    return Split(images.reshape(-1, 28, 28, 1), labels.astype("int32"))


def _in_memory(batches: object) -> Split:
    images, labels = zip(*batches.as_numpy_iterator(), strict=True)  # type: ignore[attr-defined]
    return Split(np.concatenate(images), np.concatenate(labels).astype("int32"))
