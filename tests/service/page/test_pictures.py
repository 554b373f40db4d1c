"""Drawings and pictures in the form that a model takes."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.page.pictures import (
    Shape,
    fitted,
    ink_of_photograph,
    like_mnist,
    opened,
    shown,
)
from tests.conftest import REPOSITORY
from tests.training.data.cases import CASES, COLOUR
from tests.training.data.folders import saved
from training.errors import UserError

MNIST = REPOSITORY.parent / "shared" / "data" / "mnist"


def centre(image: np.ndarray) -> np.ndarray:
    """The centre of mass, (row, column)."""
    weights = image.astype("float64") / image.sum()
    return np.array(
        [(weights.sum(1) * range(28)).sum(), (weights.sum(0) * range(28)).sum()]
    )


def strokes(top: int, left: int, scale: int) -> np.ndarray:
    """An L on a canvas of 280 x 280 pixels."""
    ink = np.zeros((280, 280), np.uint8)
    ink[top : top + 20 * scale, left : left + 3 * scale] = 255
    ink[top + 17 * scale : top + 20 * scale, left : left + 10 * scale] = 255
    return ink


def drawn(ink: np.ndarray, shape: Shape = (28, 28, 1)) -> np.ndarray:
    """The image of a drawing that is not empty."""
    image = like_mnist(ink, shape)
    assert image is not None
    return image


@pytest.mark.parametrize("place", [(0, 0, 5), (100, 150, 5), (30, 60, 10), (0, 180, 7)])
def test_drawings_have_mnists_size_and_place(place: tuple[int, int, int]) -> None:
    image = drawn(strokes(*place))
    assert image.shape == (28, 28, 1)
    assert image.dtype == np.uint8
    rows, columns = (np.flatnonzero(image[..., 0].any(axis=a)) for a in (1, 0))
    assert (int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1) == (20, 10)
    assert np.abs(centre(image[..., 0]) - 13.5).max() <= 0.5
    np.testing.assert_allclose(image, drawn(strokes(0, 0, 10)), atol=4)


def test_nothing_drawn_is_no_drawing() -> None:
    assert like_mnist(np.zeros((280, 280), np.uint8), (28, 28, 1)) is None


def test_drawings_for_other_models() -> None:
    assert drawn(strokes(0, 0, 5), (64, 48, 3)).shape == (64, 48, 3)
    assert drawn(strokes(0, 0, 5), (None, None, 3)).shape == (28, 28, 3)
    with pytest.raises(UserError, match=r"1 or 3 channels\. Received: 2"):
        like_mnist(strokes(0, 0, 5), (28, 28, 2))


@pytest.mark.skipif(not MNIST.is_dir(), reason=f"needs MNIST's archives in {MNIST}")
def test_mnists_own_digits_stay_as_they_are() -> None:
    """Enlarged and moved into a corner they come back to where MNIST has them."""
    raw = gzip.decompress((MNIST / "t10k-images-idx3-ubyte.gz").read_bytes())
    digits = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28)[:200]
    for digit in digits:
        ink = digit.repeat(10, axis=0).repeat(10, axis=1)
        image = drawn(ink)
        shifts = [
            np.abs(np.roll(digit, (y, x), (0, 1)) - image[..., 0].astype(float)).mean()
            for y in (-1, 0, 1)
            for x in (-1, 0, 1)
        ]
        assert min(shifts) < 0.05 * 255


def test_a_photograph_of_ink_on_paper() -> None:
    shading = np.linspace(200, 240, 280)[:, np.newaxis]
    drawing = strokes(50, 60, 8)
    paper = np.where(drawing, 40, shading).astype(np.uint8)
    ink = ink_of_photograph(Image.fromarray(paper))
    np.testing.assert_array_equal(ink > 128, drawing > 0)
    assert ink[drawing == 0].max() == 0


def test_a_picture_of_the_models_size_goes_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    image = fitted(Image.fromarray(pixels), (28, 28, 1))
    np.testing.assert_array_equal(image[..., 0], pixels)
    np.testing.assert_array_equal(shown(image)[::8, ::8], pixels)
    assert fitted(Image.fromarray(pixels), (14, 7, 3)).shape == (14, 7, 3)
    assert fitted(Image.fromarray(pixels), (None, None, 1)).shape == (28, 28, 1)


def test_what_is_transparent_is_white() -> None:
    clear = Image.new("RGBA", (28, 28), (0, 0, 0, 0))
    assert (fitted(clear, (28, 28, 1)) == 255).all()


def test_an_uploaded_picture_has_the_pixels_of_training(tmp_path: Path) -> None:
    path = tmp_path / "picture"
    for name, (contents, expected) in CASES.items():
        path.write_bytes(contents)
        seen = fitted(opened(path), (None, None, 3))
        np.testing.assert_array_equal(seen, expected, err_msg=name)
        if "grey" in name and "transparent" not in name:
            seen = fitted(opened(path), (*expected.shape[:2], 1))
            np.testing.assert_array_equal(seen, expected[..., :1], err_msg=name)


def test_other_uploads_are_opened_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(saved(Image.fromarray(COLOUR), "WEBP", lossless=True))
    np.testing.assert_array_equal(fitted(opened(path), (None, None, 3)), COLOUR)
    deep = np.arange(120, dtype=np.uint16).reshape(12, 10)
    path.write_bytes(saved(Image.fromarray(deep), "TIFF"))
    with pytest.raises(UserError, match=r"8 bits a channel, .* mode I;16\."):
        opened(path)
    path.write_bytes(CASES["colour"][0][:60])
    with pytest.raises((ValueError, OSError)):
        opened(path)
