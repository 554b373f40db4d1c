"""Open a folder of pictures."""

import hashlib
import os
import random
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf

from training.data.layout import read_folder, shown
from training.data.pictures import Form, decode, inspect
from training.data.source import Source
from training.errors import UserError
from training.machine import num_cores

_AT_A_TIME = 16  # pictures whose files are in memory while they are inspected

# The name of a picture below the folder, where it lies, its label.
_Example = tuple[str, Path, int]


def open_folder(root: Path) -> Source:
    """Open a folder of pictures by class; docs/data.md has the rule.

    Raises:
        UserError: If the folder has no clear meaning or a picture cannot be decoded.
    """
    folder = read_folder(root)
    examples = {
        split: [
            (f"{folder.names[split]}/{label}/{name}", path, index)
            for index, label in enumerate(folder.labels)
            for name, path in pictures.get(label, {}).items()
        ]
        for split, pictures in folder.splits.items()
    }
    forms, digest = _inspect([e for split in examples.values() for e in split])
    for split, part in examples.items():
        # As TFDS's ImageFolder orders them, so that earlier runs can be resumed.
        random.Random(folder.names[split]).shuffle(part)
    sizes = {(form.height, form.width) for form in forms.values()}
    height, width = sizes.pop() if len(sizes) == 1 else (None, None)
    shape = height, width, max(form.channels for form in forms.values())

    def read(split: str) -> tf.data.Dataset:
        return _read(examples[split], forms, shape)

    return Source(
        name=f"folder:{root}",
        version=f"{len(forms)} pictures",
        checksums={"all pictures": digest},
        labels=folder.labels,
        shape=shape,
        dtype="uint8",
        sizes={split: len(part) for split, part in examples.items()},
        read=read,
        order={
            split: np.array([label for *_, label in part])
            for split, part in examples.items()
        },
    )


def _inspect(examples: Sequence[_Example]) -> tuple[dict[str, Form], str]:
    """Decode all pictures once; return their forms by name, and a digest."""
    forms, digest = {}, hashlib.sha256()
    ordered = sorted(examples, key=lambda example: example[0].split("/"))
    with warnings.catch_warnings(), ThreadPoolExecutor(num_cores()) as pool:
        # TensorFlow decodes, whatever Pillow says of a large or damaged picture.
        warnings.simplefilter("ignore")
        for start in range(0, len(ordered), _AT_A_TIME):
            part = ordered[start : start + _AT_A_TIME]
            found = pool.map(_contents_and_form, [path for _, path, _ in part])
            for (name, *_), (contents, form) in zip(part, found, strict=True):
                forms[name] = form
                digest.update(os.fsencode(name) + b"\0" + contents)
    return forms, digest.hexdigest()


def _contents_and_form(path: Path) -> tuple[bytes, Form]:
    try:
        contents = path.read_bytes()
        return contents, inspect(contents)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"{shown(path)} is not a readable picture: {reason}. Repair or remove it."
        ) from error


def _read(
    examples: Sequence[_Example],
    forms: dict[str, Form],
    shape: tuple[int | None, int | None, int],
) -> tf.data.Dataset:
    own = [forms[name] for name, *_ in examples]

    def example(
        path: tf.Tensor, label: tf.Tensor, orientation: tf.Tensor, clear: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        image = decode(tf.io.read_file(path), shape[2], orientation, clear)
        image.set_shape(shape)
        return image, label

    return tf.data.Dataset.from_tensor_slices(
        (
            [os.fsencode(path) for _, path, _ in examples],
            tf.constant([label for *_, label in examples], tf.int64),
            tf.constant([form.orientation for form in own]),
            tf.constant([form.is_transparent for form in own]),
        )
    ).map(example, num_parallel_calls=tf.data.AUTOTUNE)
