"""Folders of pictures, and what a pipeline gives of them."""

import hashlib
import io
import struct
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from training.config import TrainConfig
from training.data.pipeline import Data, load


def picture(path: Path, size: tuple[int, int] = (10, 8), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = len(list(path.parent.iterdir()))
    shape = (size[1], size[0], 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def open_folder(root: Path, **options: Any) -> Data:
    return load(TrainConfig(dataset=f"folder:{root}", **options))


def counted(images: Any, labels: Any) -> Counter[tuple[bytes, int]]:
    pairs = zip(images, labels, strict=True)
    return Counter((hashlib.md5(i.tobytes()).digest(), int(k)) for i, k in pairs)


def all_of(dataset: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    images, labels = zip(*dataset.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def fingerprints(dataset: tf.data.Dataset) -> list[bytes]:
    return [hashlib.md5(i.tobytes()).digest() for i in all_of(dataset)[0]]


def png(pixels: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 8 or 16 bits, (height, width, 1 to 4 channels), with more chunks."""
    height, width, channels = pixels.shape
    bits = 8 * pixels.dtype.itemsize
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels.astype(f">u{bits // 8}"))
    parts = (b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data))
        + kind
        + data
        + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """A picture as Pillow writes it."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
