"""What a dataset is to the pipeline, wherever it comes from."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class Source:
    """A dataset that is ready to read, and what a model card says about it."""

    name: str
    version: str
    checksums: dict[str, str]  # SHA-256 by the archive's name
    labels: tuple[str, ...]
    shape: tuple[int | None, int | None, int | None]  # None where the images differ
    dtype: str
    sizes: dict[str, int]  # of the splits that it has
    read: Callable[[str], tf.data.Dataset]  # (image, label) of a split, in fixed order
    # The label of each image of a split in that order, for splits where it is known.
    order: dict[str, np.ndarray] = field(default_factory=dict)
