"""How pictures are decoded, and which are refused."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.training.data.cases import CASES, COLOUR, GREY, PHOTO
from tests.training.data.folders import png, saved
from training.data.folders import open_folder
from training.data.pictures import decode_stored, inspect, read
from training.errors import UserError


def test_training_sees_the_pixels_of_every_kind_of_picture(tmp_path: Path) -> None:
    for index, (contents, _) in enumerate(CASES.values()):
        (tmp_path / f"{index:02}").mkdir()
        (tmp_path / f"{index:02}" / "1.jpg").write_bytes(contents)
    source = open_folder(tmp_path)
    assert source.shape == (None, None, 3)
    found = {
        int(label): image for image, label in source.read("train").as_numpy_iterator()
    }
    assert len(found) == len(CASES)
    for index, (name, (contents, expected)) in enumerate(CASES.items()):
        np.testing.assert_array_equal(found[index], expected, err_msg=name)
        np.testing.assert_array_equal(read(contents), expected, err_msg=name)


def test_grey_pictures_have_one_channel(tmp_path: Path) -> None:
    names = [name for name in CASES if "grey" in name or "black" in name]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(CASES[name][0])
    source = open_folder(tmp_path)
    assert source.shape == (None, None, 1)
    for image, label in source.read("train").as_numpy_iterator():
        expected = CASES[source.labels[label]][1][..., :1]
        np.testing.assert_array_equal(image, expected)


WHOLE = saved(PHOTO, "JPEG")
REFUSED = {
    **{
        kind: saved(Image.fromarray(COLOUR), kind)
        for kind in ("WEBP", "GIF", "TIFF", "ICO", "PPM", "BMP")
    },
    "nothing": b"",
    "text": b"<html>404</html>",
    "a PNG cut short": png(COLOUR)[:-60],
    "the head of a PNG": png(COLOUR)[:20],
    "a JPEG cut short": WHOLE[: len(WHOLE) // 2],
    "the head of a JPEG": WHOLE[:4],
    "a PNG above 179 megapixels": png(np.zeros((1, 1, 1), np.uint8)).replace(
        struct.pack(">II", 1, 1), struct.pack(">II", 40_000, 40_000)
    ),
    "a JPEG above 179 megapixels": WHOLE.replace(
        struct.pack(">HH", PHOTO.height, PHOTO.width), struct.pack(">HH", 50_000, 4_000)
    ),
    "a wrong checksum": png(COLOUR).replace(b"IDAT\x78", b"IDAT\x79"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_picture_that_cannot_be_decoded_is_named(tmp_path: Path, name: str) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "good.png").write_bytes(png(COLOUR))
    path = tmp_path / "b" / "bad.png"
    path.write_bytes(REFUSED[name])
    with pytest.raises(UserError, match=rf"^{path} is not a readable picture: ") as e:
        open_folder(tmp_path)
    assert "\n" not in str(e.value)
    assert str(e.value).endswith(". Repair or remove it.")


def test_what_tfds_keeps_is_decoded_exactly() -> None:
    """Of JPEG; else as TFDS does."""
    photo = saved(PHOTO, "JPEG", quality=60)
    exact = np.asarray(Image.open(io.BytesIO(photo)))
    np.testing.assert_array_equal(decode_stored(tf.constant(photo), 3), exact)
    for kind in ("BMP", "PNG"):
        stored = tf.constant(saved(PHOTO, kind))
        np.testing.assert_array_equal(decode_stored(stored, 3), np.asarray(PHOTO))
    deep = np.arange(0, 2**16, 1024, np.uint16).reshape(8, 8, 1)
    decoded = decode_stored(tf.constant(png(deep)), 1, tf.uint16)
    np.testing.assert_array_equal(decoded, deep)


def test_the_form_of_a_picture() -> None:
    assert inspect(saved(GREY, "PNG")).channels == 1
    form = inspect(CASES["orientation 6"][0])
    assert (form.height, form.width) == (PHOTO.width, PHOTO.height)
    assert (form.channels, form.orientation, form.is_transparent) == (3, 6, False)
    assert inspect(CASES["RGBA"][0]).is_transparent
