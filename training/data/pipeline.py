"""Make reproducible `tf.data` pipelines of (images, labels)."""

import dataclasses
import functools
import math
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from training.config import TrainConfig
from training.data.augment import change, mix
from training.data.source import Source
from training.data.sources import open_source
from training.errors import UserError

SPLITS = ("train", "validation", "test")

Batch = tuple[tf.Tensor, tf.Tensor]  # images and labels

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
    # The number of images by split and class, for splits where it is known.
    counts: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def scale(self) -> float:
        """Return the factor that maps integer images to [0, 1]; 1 for other images."""
        dtype = np.dtype(self.dtype)
        return 1.0 / np.iinfo(dtype).max if dtype.kind == "u" else 1.0

    @property
    def bytes_of_an_image(self) -> int:
        """Return the size of a decoded image in memory."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @functools.cached_property
    def train_counts(self) -> tuple[int, ...]:
        """The number of training images of each class, counted if it is not known."""
        if "train" in self.counts:
            return self.counts["train"]
        labels = self.splits["train"].map(lambda _, label: label).batch(2**14)
        size = len(self.labels)
        each = [np.bincount(y, minlength=size) for y in labels.as_numpy_iterator()]
        return tuple(np.sum(each, axis=0).tolist())

    def epochs(
        self,
        first: int,
        last: int,
        batch_size: int,
        seed: int,
        augment: str = "none",
        mixup: float = 0.0,
        rows: bool = False,
    ) -> tf.data.Dataset:
        """Return the training batches of the epochs `first` to `last - 1`, in a row.

        The order within an epoch depends on `(seed, epoch)` alone, and how a batch is
        changed on its number in the epoch, too. So a resumed run sees the batches that
        the uninterrupted run would have seen.

        Args:
            first: The first epoch, from 0.
            last: The one after the last epoch.
            batch_size: The number of images in a batch but for an epoch's last one.
            seed: What order and changes follow from.
            augment: How images are changed: a policy of `change`, or none.
            mixup: How far images are then mixed: the alpha of `mix`, or 0.
            rows: Whether labels are rows of probabilities, as mixed ones always are.
        """
        train = self.splits["train"]
        changed = None if augment == "none" else change(augment)
        mixed = mix(mixup) if mixup else None

        def made(batch: Batch, batch_seed: tf.Tensor) -> Batch:
            images, labels = batch
            if changed:
                images = changed(images, batch_seed)
            if rows or mixed:
                labels = tf.one_hot(labels, len(self.labels))
            return mixed(images, labels, batch_seed) if mixed else (images, labels)

        def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
            # This function is traced, so this sets the seed of its graph alone.
            # Without it the order would also depend on the global seed, and shuffling
            # with a tensor as seed fails if the global seed is 0.
            tf.random.set_seed(1)
            epoch_seed = tf.random.stateless_uniform(
                (), (seed, epoch), minval=None, maxval=None, dtype=tf.int64
            )
            batches = train.shuffle(
                self._shuffle_window(), epoch_seed, reshuffle_each_iteration=False
            ).batch(batch_size)
            if not (changed or mixed or rows):
                return batches
            return batches.enumerate().map(
                lambda number, batch: made(batch, tf.stack([epoch_seed, number])),
                num_parallel_calls=tf.data.AUTOTUNE,
            )

        return (
            tf.data.Dataset.range(first, last)
            .flat_map(epoch_batches)
            .prefetch(tf.data.AUTOTUNE)
        )

    def batches(self, split: str, batch_size: int) -> tf.data.Dataset:
        """Return all examples of a split in batches, in a fixed order."""
        return self.splits[split].batch(batch_size).prefetch(tf.data.AUTOTUNE)

    def _shuffle_window(self) -> int:
        return min(self.sizes["train"], _MEMORY_BYTES // self.bytes_of_an_image)


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
    shape, dtype = _model_shape(source.shape, config), source.dtype
    parts, notes = _parts(source, config.validation_split)
    splits = {name: part.read(source) for name, part in parts.items()}
    sizes = {name: part.size for name, part in parts.items()}
    if config.image_size:
        splits = {name: _resized(split, shape[:2]) for name, split in splits.items()}
    data = Data(
        name=source.name,
        version=source.version,
        checksums=source.checksums,
        labels=source.labels,
        shape=shape,
        served_shape=(None, None, shape[2]) if config.image_size else shape,
        dtype=dtype,
        sizes=sizes,
        notes=notes,
        splits=splits,
        counts={
            name: part.counts(source)
            for name, part in parts.items()
            if part.split in source.order
        },
    )
    if sum(sizes.values()) * data.bytes_of_an_image > _MEMORY_BYTES:
        return data
    cached = {name: split.cache() for name, split in splits.items()}
    return dataclasses.replace(data, splits=cached)


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


@dataclass(frozen=True)
class _Part:
    """Some images of a split of the source, those from `start` on."""

    split: str
    start: int
    size: int

    def read(self, source: Source) -> tf.data.Dataset:
        """Return the images, in the order of the source."""
        return source.read(self.split).skip(self.start).take(self.size)

    def counts(self, source: Source) -> tuple[int, ...]:
        """Return the number of images of each class."""
        labels = source.order[self.split][self.start : self.start + self.size]
        return tuple(np.bincount(labels, minlength=len(source.labels)).tolist())


def _parts(source: Source, fraction: float) -> tuple[dict[str, _Part], tuple[str, ...]]:
    """Return train, validation and test; split off from train what is missing."""
    sizes = source.sizes
    train_name = "train" if "train" in sizes else next(iter(sizes))
    if train_name != "train" and len(sizes) > 1:
        raise UserError(
            f"The dataset must have a split named train. Received: {', '.join(sizes)}."
        )
    start, parts, notes = 0, {}, []
    size = max(1, round(sizes[train_name] * fraction))
    for name, aliases in _SPLIT_NAMES.items():
        own = next((a for a in aliases if a in sizes and a != train_name), None)
        if own is not None:
            parts[name] = _Part(own, 0, sizes[own])
            continue
        parts[name] = _Part(train_name, start, size)
        start += size
        notes.append(f"{name}: {size} images split off from {train_name}")
    if start >= sizes[train_name]:
        raise UserError(
            f"{source.name} has too few images for training, validation and test: "
            f"{sizes[train_name]} in {train_name}."
        )
    parts["train"] = _Part(train_name, start, sizes[train_name] - start)
    return parts, tuple(notes)


def _resized(split: tf.data.Dataset, size: tuple[int, int]) -> tf.data.Dataset:
    return split.map(
        lambda image, label: (resize(image, size), label),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
