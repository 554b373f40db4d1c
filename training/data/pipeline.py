"""Make reproducible `tf.data` pipelines of (images, labels)."""

import math
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from training.config import TrainConfig
from training.data.sources import open_source
from training.errors import UserError

SPLITS = ("train", "validation", "test")

# A dataset up to this size is cached and its training split is shuffled as a whole.
# A larger one is decoded in every epoch and shuffled in a window of this size.
_MEMORY_BYTES = 4 * 2**30

_SPLIT_NAMES = {"validation": ("validation", "valid", "val"), "test": ("test",)}


@dataclass(frozen=True)
class Data:
    """The three splits of a dataset, and what is known about it."""

    name: str
    version: str
    checksums: dict[str, str]
    labels: tuple[str, ...]
    shape: tuple[int, int, int]  # what the model takes
    served_shape: tuple[int | None, int | None, int]  # what the SavedModel takes
    dtype: str
    sizes: dict[str, int]
    notes: tuple[str, ...]
    splits: dict[str, tf.data.Dataset] = field(repr=False)

    @property
    def scale(self) -> float:
        """Return the factor that maps integer images to [0, 1]; 1 for other images."""
        dtype = np.dtype(self.dtype)
        return 1.0 / np.iinfo(dtype).max if dtype.kind == "u" else 1.0

    def epochs(
        self, first: int, last: int, batch_size: int, seed: int
    ) -> tf.data.Dataset:
        """Return the training batches of the epochs `first` to `last - 1`, in a row.

        The order within an epoch depends on `(seed, epoch)` alone, so a resumed run
        sees the batches that the uninterrupted run would have seen.
        """
        train = self.splits["train"]

        def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
            # This function is traced, so this sets the seed of its graph alone.
            # Without it the order would also depend on the global seed, and shuffling
            # with a tensor as seed fails if the global seed is 0.
            tf.random.set_seed(1)
            epoch_seed = tf.random.stateless_uniform(
                (), (seed, epoch), minval=None, maxval=None, dtype=tf.int64
            )
            return train.shuffle(
                self._shuffle_window(), epoch_seed, reshuffle_each_iteration=False
            ).batch(batch_size)

        return (
            tf.data.Dataset.range(first, last)
            .flat_map(epoch_batches)
            .prefetch(tf.data.AUTOTUNE)
        )

    def batches(self, split: str, batch_size: int) -> tf.data.Dataset:
        """Return all examples of a split in batches, in a fixed order."""
        return self.splits[split].batch(batch_size).prefetch(tf.data.AUTOTUNE)

    def _shuffle_window(self) -> int:
        return min(self.sizes["train"], _MEMORY_BYTES // _bytes(self.shape, self.dtype))


def resize(images: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Resize images in their own dtype; training and serving both use this."""
    resized = tf.image.resize(images, size, antialias=True)
    if images.dtype.is_integer:
        resized = tf.round(resized)
    return tf.saturate_cast(resized, images.dtype)


def load(config: TrainConfig) -> Data:
    """Open the dataset of a job and split it.

    Raises:
        UserError: If the dataset is not available or does not fit the other options.
    """
    source = open_source(config)
    info = source.builder.info
    image, label = (info.features[key] for key in info.supervised_keys)
    shape = _model_shape(image.shape, config)
    dtype = tf.as_dtype(image.tf_dtype).name
    splits, sizes, notes = _split(source.builder, config.validation_split)
    if config.image_size:
        splits = {name: _resized(split, shape[:2]) for name, split in splits.items()}
    if sum(sizes.values()) * _bytes(shape, dtype) <= _MEMORY_BYTES:
        splits = {name: split.cache() for name, split in splits.items()}
    return Data(
        name=source.name,
        version=source.version,
        checksums=source.checksums,
        labels=tuple(label.names),
        shape=shape,
        served_shape=(None, None, shape[2]) if config.image_size else shape,
        dtype=dtype,
        sizes=sizes,
        notes=notes,
        splits=splits,
    )


def _model_shape(
    shape: tuple[int | None, ...], config: TrainConfig
) -> tuple[int, int, int]:
    height, width, channels = shape
    if channels is None:
        raise UserError(f"The images of {config.dataset} differ in their channels.")
    if config.image_size:
        height = width = config.image_size
    if height is None or width is None:
        raise UserError(
            f"The images of {config.dataset} differ in size. Give the size to resize "
            "them to with --image-size N."
        )
    return height, width, channels


def _split(
    builder: tfds.core.DatasetBuilder, fraction: float
) -> tuple[dict[str, tf.data.Dataset], dict[str, int], tuple[str, ...]]:
    """Return train, validation and test; split off from train what is missing."""
    available = {name: info.num_examples for name, info in builder.info.splits.items()}
    train_name = "train" if "train" in available else next(iter(available))
    if train_name != "train" and len(available) > 1:
        raise UserError(
            "The dataset must have a split named train. "
            f"Received: {', '.join(available)}."
        )
    rest, size = _read(builder, train_name), available[train_name]
    splits, sizes, notes = {}, {}, []
    part = max(1, round(size * fraction))
    for name, aliases in _SPLIT_NAMES.items():
        own = next((a for a in aliases if a in available and a != train_name), None)
        if own is not None:
            splits[name], sizes[name] = _read(builder, own), available[own]
            continue
        splits[name], sizes[name] = rest.take(part), part
        rest, size = rest.skip(part), size - part
        notes.append(f"{name}: {part} images split off from {train_name}")
    if size < 1:
        raise UserError(
            f"{builder.name} has too few images for training, validation and test: "
            f"{available[train_name]} in {train_name}."
        )
    splits["train"], sizes["train"] = rest, size
    return splits, sizes, tuple(notes)


def _read(builder: tfds.core.DatasetBuilder, split: str) -> tf.data.Dataset:
    # `load` caches, after it has resized. The order of the files is fixed.
    options = tfds.ReadConfig(try_autocache=False)
    return builder.as_dataset(split=split, as_supervised=True, read_config=options)


def _resized(split: tf.data.Dataset, size: tuple[int, int]) -> tf.data.Dataset:
    return split.map(
        lambda image, label: (resize(image, size), label),
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def _bytes(shape: tuple[int, int, int], dtype: str) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize
