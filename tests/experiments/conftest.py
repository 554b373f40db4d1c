"""Data for small experiments."""

from collections.abc import Callable

import numpy as np
import pytest

from experiments.data import Split, Splits
from experiments.lab import Lab


@pytest.fixture
def data(
    fashion_mnist: Callable[[str], tuple[np.ndarray, np.ndarray]],
    monkeypatch: pytest.MonkeyPatch,
) -> Splits:
    """2,000 images of Fashion-MNIST, also in the place of MNIST's."""
    images, labels = fashion_mnist("train")
    parts = (slice(1000), slice(1000, 1500), slice(1500, 2000))
    splits = Splits(*(Split(images[p], labels[p].astype("int32")) for p in parts))
    monkeypatch.setattr(Lab, "data", lambda lab, dataset: splits)
    return splits
