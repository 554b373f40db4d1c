"""The reference models: what stands where, whatever the size of the images."""

import itertools
from typing import Any

import keras
import numpy as np
import pytest

import kerasnorm
import models

SHAPES = [(28, 28, 1), (32, 32, 3), (97, 64, 3)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    keras.utils.set_random_seed(7)


def sources(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers whose outputs a layer takes."""
    return [node.operation for node in layer._inbound_nodes[0].parent_nodes]


def ancestors(layer: keras.layers.Layer) -> set[keras.layers.Layer]:
    direct = sources(layer)
    return set(direct).union(*(ancestors(source) for source in direct))


def of(model: keras.Model, kind: Any) -> list[keras.layers.Layer]:
    return [layer for layer in model.layers if isinstance(layer, kind)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", models.REGISTRY)
def test_images_of_any_size_to_logits(name: str, shape: tuple[int, int, int]) -> None:
    model = models.build(name, shape, 7)
    assert type(model).__name__ == "Functional"
    images = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
    logits = model(images, training=True)
    assert logits.shape == (3, 7)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize(
    ("size", "widths"),
    [
        (8, [32]),
        (16, [32]),
        (28, [32, 64]),
        (32, [32, 64]),
        (300, [32, 64, 128, 256, 256, 256]),
    ],
)
def test_the_stages_of_the_cnn(size: int, widths: list[int]) -> None:
    model = models.build("cnn", (size, size, 1), 10)
    convolutions = of(model, keras.layers.Conv2D)
    first, *rest = [w for w in widths for _ in range(2)]
    assert [c.filters for c in convolutions] == [first // 2, *rest]
    (flatten,) = of(model, keras.layers.Flatten)
    assert max(flatten.input.shape[1:3]) <= 8


@pytest.mark.parametrize("name", models.REGISTRY)
def test_names(name: str) -> None:
    model = models.build(name, (28, 28, 1), 10)
    assert model.name == name
    assert model.input.name == "images"
    assert model.layers[-1].name == "logits"


@pytest.mark.parametrize("name", models.REGISTRY)
def test_normalization_comes_before_the_nonlinearity_and_replaces_the_bias(
    name: str,
) -> None:
    model = models.build(name, (28, 28, 1), 10)
    norms = of(model, kerasnorm.KBatchNorm)
    relus = of(model, keras.layers.ReLU)
    assert len(norms) == len(relus) > 0
    for relu in relus:
        (norm,) = sources(relu)
        assert norm in norms
    for layer in of(model, (keras.layers.Dense, keras.layers.Conv2D)):
        assert layer.use_bias is (layer.name == "logits")


@pytest.mark.parametrize("name", models.REGISTRY)
def test_no_dropout_before_a_normalization(name: str) -> None:
    model = models.build(name, (28, 28, 1), 10)
    (dropout,) = of(model, kerasnorm.KDropout)
    for norm in of(model, kerasnorm.KBatchNorm):
        assert dropout not in ancestors(norm)
    assert sources(model.get_layer("logits")) == [dropout]


def test_the_papers_dropout_without_normalization() -> None:
    model = models.build("mlp", (28, 28, 1), 10, norm=False, dropout_rate=0.5)
    assert of(model, kerasnorm.KBatchNorm) == []
    rates = [layer.rate for layer in of(model, kerasnorm.KDropout)]
    assert rates == [0.2, 0.5, 0.5]


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("name", models.REGISTRY)
def test_dropout_and_normalization_can_be_left_out(name: str, norm: bool) -> None:
    model = models.build(name, (28, 28, 1), 10, norm=norm, dropout_rate=0.0)
    assert of(model, kerasnorm.KDropout) == []
    assert bool(of(model, kerasnorm.KBatchNorm)) is norm


def test_the_preset_of_the_paper() -> None:
    model = models.build("mlp", (28, 28, 1), 10, preset="srivastava2014", norm=False)
    widths = [784, 1024, 1024, 2048, 10]
    assert model.count_params() == sum(
        (fan_in + 1) * fan_out for fan_in, fan_out in itertools.pairwise(widths)
    )


@pytest.mark.parametrize("name", models.REGISTRY)
def test_max_norm_bounds_each_units_incoming_weights(name: str) -> None:
    model = models.build(name, (12, 12, 1), 3, max_norm=0.5)
    model.compile(
        keras.optimizers.SGD(1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    rng = np.random.default_rng(0)
    model.train_on_batch(rng.integers(0, 256, (8, 12, 12, 1)), rng.integers(0, 3, 8))
    bounded = of(model, (keras.layers.Dense, keras.layers.Conv2D))[:-1]
    assert bounded
    for layer in bounded:
        kernel = keras.ops.convert_to_numpy(layer.kernel)
        norms = np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), axis=0)
        assert norms.max() <= 0.5 + 1e-4


def test_images_are_scaled_inside() -> None:
    bytes_model = models.build("mlp", (4, 4, 1), 2)
    unit_model = models.build("mlp", (4, 4, 1), 2, scale=1.0)
    unit_model.set_weights(bytes_model.get_weights())
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 1), np.uint8)
    np.testing.assert_allclose(
        bytes_model(images), unit_model(images / np.float32(255)), rtol=1e-5, atol=1e-6
    )


def test_logits_are_float32_under_mixed_precision() -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = models.build("cnn", (28, 28, 1), 10)
        assert model.layers[-1].name == "logits"
        assert model.output.dtype == "float32"
        assert model.layers[-2].compute_dtype == "bfloat16"
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("name", models.REGISTRY)
def test_a_saved_model_file_is_read_back(name: str, tmp_path: Any) -> None:
    model = models.build(name, (12, 12, 3), 4, max_norm=3.0)
    model.save(tmp_path / "model.keras")
    images = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3), np.uint8)
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model.predict(images), again.predict(images))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one of cnn, mlp, .* Received: .*'rnn'"):
        models.build("rnn", (28, 28, 1), 10)
    with pytest.raises(ValueError, match=r"`preset` must be one of .*'huge'"):
        models.build("mlp", (28, 28, 1), 10, preset="huge")
