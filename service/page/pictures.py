"""Drawings and pictures in the form that a model takes."""

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from training.data.pictures import is_png_or_jpeg, read
from training.errors import UserError

_MNIST = 28  # pixels
_MNIST_BOX = 20  # pixels that the longer side of a digit has
_MODES = {1: "L", 3: "RGB"}
_SHOWN = 224  # pixels
_LARGEST = 1024  # pixels

Shape = Sequence[int | None]


def opened(path: Path) -> Image.Image:
    """Open a picture file; of a PNG or a JPEG the pixels are those of training.

    Raises:
        UserError: If another kind of picture has more than 8 bits.
        OSError, ValueError: If it cannot be decoded.
    """
    contents = path.read_bytes()
    if is_png_or_jpeg(contents):
        return Image.fromarray(read(contents))
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(contents)))
    if picture.mode.startswith(("I", "F")):  # what Pillow would clip, not scale
        raise UserError(
            "A picture must have 8 bits a channel, or be a PNG. "
            f"Received: Pillow's mode {picture.mode}."
        )
    return picture


def ink_of_photograph(picture: Image.Image) -> np.ndarray:
    """Return the ink of a dark drawing on light paper, 0 to 255."""
    grey = _flat(picture).convert("L")
    grey.thumbnail((_LARGEST, _LARGEST))  # more than any model takes of strokes
    lightness = np.asarray(grey, np.float64)
    paper, darkest = np.percentile(lightness, 90), lightness.min()
    # A small difference from the paper is shading, not ink.
    ink = (0.8 * paper - lightness) / max(0.8 * paper - darkest, 1.0)
    return np.round(255 * ink.clip(0, 1)).astype(np.uint8)


def like_mnist(ink: np.ndarray, shape: Shape) -> np.ndarray | None:
    """Return strokes as MNIST has them: white on black, of one size, in the middle.

    The strokes are cut out, scaled to 20 of 28 pixels and moved so that their centre
    of mass is that of the image.

    Args:
        ink: 0 to 255, (height, width).
        shape: The height, width and channels that the model takes. A height or width
            of None becomes 28 pixels.

    Returns:
        An image, 0 to 255, or None if nothing is drawn.
    """
    rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    height, width = (_MNIST if size is None else size for size in shape[:2])
    strokes = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = min(height, width) * _MNIST_BOX / _MNIST / max(strokes.shape)
    small = np.asarray(
        Image.fromarray(strokes).resize(
            [max(1, round(side * scale)) for side in strokes.shape[::-1]],
            Image.Resampling.BILINEAR,
        )
    )
    image = np.zeros((height, width), np.uint8)
    top, left = (
        _offset(small.sum(axis=1 - axis), (height, width)[axis]) for axis in (0, 1)
    )
    image[top : top + small.shape[0], left : left + small.shape[1]] = small
    return np.repeat(image[..., np.newaxis], _channels(shape), axis=-1)


def _offset(mass: np.ndarray, size: int) -> int:
    """Return where strokes begin if their centre of mass is in the middle."""
    centre = (np.arange(len(mass)) * mass).sum() / max(mass.sum(), 1)
    return int(np.clip(round((size - 1) / 2 - centre), 0, size - len(mass)))


def fitted(picture: Image.Image, shape: Shape) -> np.ndarray:
    """Return a picture in the size and the channels that a model takes, 0 to 255."""
    height, width = shape[:2]
    converted = _flat(picture).convert(_MODES[_channels(shape)])
    if height is not None and width is not None:
        converted = converted.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(converted).reshape(*converted.size[::-1], _channels(shape))


def shown(image: np.ndarray) -> np.ndarray:
    """Return an image with pixels large enough to be seen, and not many of them."""
    step = math.ceil(max(image.shape) / _LARGEST)
    image = image[::step, ::step]
    times = max(1, _SHOWN // max(image.shape))
    large = image.repeat(times, axis=0).repeat(times, axis=1)
    return large[..., 0] if large.shape[-1] == 1 else large


def _flat(picture: Image.Image) -> Image.Image:
    """Return a picture whose transparent parts are white."""
    if "transparency" not in picture.info and "A" not in picture.getbands():
        return picture
    paper = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(paper, picture.convert("RGBA"))


def _channels(shape: Shape) -> int:
    channels = shape[2]
    if channels not in _MODES:
        raise UserError(
            f"The model must take images of 1 or 3 channels. Received: {channels}."
        )
    return channels
