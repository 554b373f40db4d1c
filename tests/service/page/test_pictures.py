"""What the page is made of: drawings as MNIST has them, model cards, masks, layers."""

import gzip
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import kerasnorm
from service.jobs.store import Job, Store
from service.page.layers import normalizations, thinned
from service.page.models import Models
from service.page.pictures import fitted, ink_of_photograph, like_mnist, shown
from service.serving.servables import Servables
from tests.conftest import REPOSITORY, Run
from tests.service.serving.served import save_scale
from training.config import TrainConfig
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


@pytest.mark.parametrize("place", [(0, 0, 5), (100, 150, 5), (30, 60, 10), (0, 180, 7)])
def test_drawings_have_mnists_size_and_place(place: tuple[int, int, int]) -> None:
    image = like_mnist(strokes(*place), (28, 28, 1))
    assert image is not None
    assert (image.shape, image.dtype) == ((28, 28, 1), np.uint8)
    rows, columns = (np.flatnonzero(image[..., 0].any(axis=a)) for a in (1, 0))
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (20, 10)
    assert np.abs(centre(image[..., 0]) - 13.5).max() <= 0.5
    np.testing.assert_allclose(
        image, like_mnist(strokes(0, 0, 10), (28, 28, 1)), atol=4
    )


def test_nothing_drawn_is_no_drawing() -> None:
    assert like_mnist(np.zeros((280, 280), np.uint8), (28, 28, 1)) is None


def test_drawings_for_other_models() -> None:
    assert like_mnist(strokes(0, 0, 5), (64, 48, 3)).shape == (64, 48, 3)
    assert like_mnist(strokes(0, 0, 5), (None, None, 3)).shape == (28, 28, 3)
    with pytest.raises(UserError, match=r"1 or 3 channels\. Received: 2"):
        like_mnist(strokes(0, 0, 5), (28, 28, 2))


@pytest.mark.skipif(not MNIST.is_dir(), reason=f"needs MNIST's archives in {MNIST}")
def test_mnists_own_digits_stay_as_they_are() -> None:
    """Enlarged and moved into a corner they come back to where MNIST has them."""
    raw = gzip.decompress((MNIST / "t10k-images-idx3-ubyte.gz").read_bytes())
    digits = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28)[:200]
    for digit in digits:
        ink = digit.repeat(10, axis=0).repeat(10, axis=1)
        image = like_mnist(ink, (28, 28, 1))
        assert image is not None
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


def test_the_models_are_those_that_are_exported(finished: Run) -> None:
    models = Models(finished.exports, Servables(finished.exports))
    (finished.exports / "empty").mkdir(exist_ok=True)
    assert models.names() == ["mlp-fashion_mnist"]
    assert models.versions("mlp-fashion_mnist") == [1]
    assert models.input("mlp-fashion_mnist", 1) == ((28, 28, 1), "uint8")
    assert not models.has("mlp-fashion_mnist", 1, "monte_carlo")
    names = models.classes("mlp-fashion_mnist", 1, 10)
    assert (names[0], names[9], len(names)) == ("T-shirt/top", "Ankle boot", 10)


def test_a_model_of_a_config_file_is_that_of_its_base_path(tmp_path: Path) -> None:
    """Not that of the directory that has its name."""
    pytest.importorskip("tensorflow_serving", reason="no extra `grpc`")
    save_scale(tmp_path / "two" / "0001", 2)
    save_scale(tmp_path / "three" / "1", 3)
    config = tmp_path / "models.config"
    config.write_text('model_config_list { config { name: "three" base_path: "two" } }')
    servables = Servables(tmp_path, config)
    models = Models(tmp_path, servables)
    inputs = {"x": np.ones(1, "float32")}
    assert (models.names(), models.versions("three")) == (["three"], [1])
    assert models.predict("three", 1, "", inputs)["y"] == [2]
    servables.start()
    assert servables.wait_until_settled(60)
    assert models.predict("three", 1, "", inputs)["y"] == [2]
    servables.stop()


def test_what_lies_elsewhere_is_not_loaded(tmp_path: Path) -> None:
    save_scale(tmp_path / "elsewhere" / "1", 2)
    (tmp_path / "base" / "m").mkdir(parents=True)
    (tmp_path / "base" / "m" / "1").symlink_to(tmp_path / "elsewhere" / "1")
    models = Models(tmp_path / "base", Servables(tmp_path / "base"))
    assert models.versions("m") == [1]
    with pytest.raises(tf.errors.PermissionDeniedError, match="leads out of"):
        models.predict("m", 1, "", {"x": np.ones(1, "float32")})


@pytest.mark.parametrize(
    ("name", "version"), [("../exports/mlp-fashion_mnist", 1), ("mlp-fashion_mnist", 2)]
)
def test_no_other_directory_is_read(finished: Run, name: str, version: int) -> None:
    with pytest.raises(UserError, match="There is no version"):
        Models(finished.exports, Servables(finished.exports)).input(name, version)


def job(config: TrainConfig, directory: Path) -> Job:
    """A job whose run lies in a directory."""
    config = config.model_copy(update={"run_dir": directory.parent})
    directory.rename(directory.parent / "1")
    store = Store(directory.parent / "jobs.sqlite")
    try:
        return store.add(config, 0)
    finally:
        store.close()


@pytest.fixture
def run(pictures: Path, tmp_path: Path) -> Job:
    """A run as its trainer leaves it, but for the training."""
    config = TrainConfig(dataset=f"folder:{pictures}", validation_split=0.1)
    x = y = keras.Input((28, 28, 1))
    y = keras.layers.Conv2D(4, 3, name="conv")(y)
    y = kerasnorm.KBatchNorm(
        moving_mean_initializer=keras.initializers.RandomNormal(seed=1),
        moving_variance_initializer=keras.initializers.RandomUniform(1, 2, seed=2),
        gamma_initializer=keras.initializers.RandomUniform(1, 2, seed=3),
        beta_initializer=keras.initializers.RandomNormal(seed=4),
    )(y)
    y = keras.layers.GlobalAveragePooling2D()(y)
    y = keras.layers.Dense(1000, name="dense")(y)
    y = kerasnorm.KDropout(0.3)(y)
    model = keras.Model(x, keras.layers.Dense(10, name="logits")(y))
    directory = tmp_path / "run"
    directory.mkdir()
    model.save(directory / "model.keras")
    return job(config, directory)


def test_what_goes_into_a_normalization_and_comes_out(run: Job) -> None:
    (layer,) = normalizations(run)
    model = keras.models.load_model(run.directory / "model.keras")
    gamma, beta, mean, variance = (
        np.array(keras.ops.copy(w.value)) for w in model.layers[2].weights
    )
    before = layer.before.reshape(-1, 4).astype("float64")
    expected = (before - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    np.testing.assert_allclose(
        layer.after.reshape(-1, 4), expected, rtol=1e-3, atol=1e-3
    )
    assert len(before) == 60 * 26 * 26  # of all test images
    assert before.std() > 1  # pixels, not noise


def test_masks_are_drawn_anew_at_the_rate(run: Job) -> None:
    first, second = thinned(run), thinned(run)
    assert [(c.name, c.number) for c in first] == [
        ("inputs", 28 * 28),
        ("conv: maps", 4),
        ("dense: units", 1000),
        ("logits: units", 10),
    ]
    assert [column.kept is not None for column in first] == [False, False, True, False]
    kept, others = first[2].kept, second[2].kept
    assert kept is not None
    assert others is not None
    assert 600 < kept.sum() < 800  # of 1000 at rate 0.3: 7 standard deviations
    assert (kept != others).any()


def test_a_run_that_is_gone(run: Job) -> None:
    (run.directory / "model.keras").unlink()
    with pytest.raises(UserError, match=r"model\.keras has been removed"):
        thinned(run)
