"""Decode pictures, for training and for the page alike.

TensorFlow decodes. What it leaves out is added: EXIF's orientation, and white behind
what is transparent.
"""

import io
import struct
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from PIL import Image

from training.errors import first_line

MOST_PIXELS = 178_956_970  # Pillow's limit, too; in colour half a gigabyte

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_SIZE = slice(16, 24)  # where a PNG has its width and height
_COLOUR_TYPE = 25  # where a PNG has it; 4 is added if there is an alpha channel
_ORIENTATION = 0x0112  # EXIF's tag
# One of these stands in a picture that has an orientation.
_TURNED = (b"Exif", b"eXIf", b"exif", b"tiff:Orientation")
# What makes each of EXIF's orientations upright, 1 to 8: after a transposition from 5
# on, the steps through rows and columns.
_FIRST_TRANSPOSED = 5
_ROWS = (1, 1, -1, -1, 1, 1, -1, -1)
_COLUMNS = (1, -1, -1, 1, 1, -1, -1, 1)


@dataclass(frozen=True)
class Form:
    """What must be known of a picture to decode it."""

    height: int  # of the upright picture
    width: int
    channels: int  # 1 if it is grey, 3 if not
    orientation: int  # EXIF's, 1 to 8
    is_transparent: bool  # it may have transparent parts


def is_png_or_jpeg(contents: bytes) -> bool:
    """Return whether a file begins as a PNG or a JPEG does, whatever its name."""
    return contents.startswith((_PNG, _JPEG))


def inspect(contents: bytes) -> Form:
    """Decode a picture to prove that `decode` can, and return its form.

    Args:
        contents: The file, a PNG or a JPEG.

    Raises:
        ValueError: If it cannot be decoded. The message is the reason.
    """
    if not is_png_or_jpeg(contents):
        raise ValueError("it is neither PNG nor JPEG" if contents else "it is empty")
    try:
        height, width = _size(contents)
        if height * width > MOST_PIXELS:
            raise ValueError(
                f"it has {height:,} x {width:,} pixels, more than {MOST_PIXELS:,}"
            )
        channels = decode_stored(tf.constant(contents), 0).shape[2]
    except tf.errors.OpError as error:
        raise ValueError(first_line(error).rstrip(".")) from error
    orientation = _orientation(contents)
    if orientation >= _FIRST_TRANSPOSED:
        height, width = width, height
    return Form(
        height,
        width,
        channels=1 if channels <= 2 else 3,
        orientation=orientation,
        is_transparent=_may_be_transparent(contents),
    )


def read(contents: bytes) -> np.ndarray:
    """Return a picture in colour, uint8 of shape (height, width, 3).

    Args:
        contents: The file, a PNG or a JPEG.

    Raises:
        ValueError: If it cannot be decoded. The message is the reason.
    """
    form = inspect(contents)
    pixels: np.ndarray = decode(
        tf.constant(contents),
        3,
        tf.constant(form.orientation),
        tf.constant(form.is_transparent),
    ).numpy()
    return pixels


def decode(
    contents: tf.Tensor,
    channels: int,
    orientation: tf.Tensor,
    is_transparent: tf.Tensor,
) -> tf.Tensor:
    """Decode a picture that `inspect` has accepted, upright and on white.

    Args:
        contents: The file, a scalar string.
        channels: 3, or 1 for pictures that are grey.
        orientation: As in `Form`, a scalar.
        is_transparent: The same.

    Returns:
        The pixels, uint8 of shape (height, width, channels).
    """
    pixels = tf.cond(
        is_transparent,
        lambda: _decode_on_white(contents, channels),
        lambda: decode_stored(contents, channels),
    )
    return tf.cond(
        orientation > 1, lambda: _upright(pixels, orientation), lambda: pixels
    )


def decode_stored(
    contents: tf.Tensor, channels: int, dtype: tf.DType = tf.uint8
) -> tf.Tensor:
    """Decode a picture as it is stored, its alpha channel left out.

    JPEG's transform is the exact one. TensorFlow's default, a faster one, differs by up
    to 16 levels from what other programs see. Of 16 bits the upper 8 are taken.

    Args:
        contents: The file, a scalar string: PNG, JPEG, BMP or GIF.
        channels: 1 or 3, or 0 for as many as there are.
        dtype: uint8 or uint16.

    Returns:
        The pixels, of shape (height, width, channels).
    """

    def other() -> tf.Tensor:
        return tf.io.decode_image(contents, channels, dtype, expand_animations=False)

    if dtype != tf.uint8:
        return other()
    return tf.cond(
        tf.io.is_jpeg(contents),
        lambda: tf.io.decode_jpeg(contents, channels, dct_method="INTEGER_ACCURATE"),
        other,
    )


def _upright(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    pixels = tf.cond(
        orientation >= _FIRST_TRANSPOSED,
        lambda: tf.transpose(pixels, (1, 0, 2)),
        lambda: pixels,
    )
    rows = tf.gather(_ROWS, orientation - 1)
    columns = tf.gather(_COLUMNS, orientation - 1)
    return pixels[::rows, ::columns]


def _decode_on_white(contents: tf.Tensor, channels: int) -> tf.Tensor:
    rgba = tf.cast(tf.io.decode_png(contents, channels=4), tf.uint16)
    colour, alpha = rgba[..., :channels], rgba[..., 3:]
    return tf.cast((colour * alpha + 255 * (255 - alpha) + 127) // 255, tf.uint8)


def _size(contents: bytes) -> tuple[int, int]:
    """Return the height and the width as they are stored, without decoding."""
    if not contents.startswith(_PNG):
        height, width, _ = tf.io.extract_jpeg_shape(contents).numpy().tolist()
        return height, width
    if len(contents) < _SIZE.stop:
        raise ValueError("it ends early")
    width, height = struct.unpack(">II", contents[_SIZE])
    return height, width


def _may_be_transparent(contents: bytes) -> bool:
    if not contents.startswith(_PNG):
        return False
    return bool(contents[_COLOUR_TYPE] & 4) or b"tRNS" in contents


def _orientation(contents: bytes) -> int:
    if not any(mark in contents for mark in _TURNED):
        return 1
    try:
        with Image.open(io.BytesIO(contents), formats=("PNG", "JPEG")) as image:
            orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # what cannot be read turns nothing, as in a browser
        return 1
    # Any type may be stored there.
    return orientation if type(orientation) is int and 1 <= orientation <= 8 else 1
