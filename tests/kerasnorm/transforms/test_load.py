"""Files of Keras's layers into ours and the other way."""

import keras
import numpy as np
import pytest
from keras import layers

import kerasnorm
from kerasnorm import KBatchNorm, KDropout
from tests.kerasnorm.probes import numpy
from tests.kerasnorm.transforms.test_custom_layers import (
    BLOCKS,
    EAGER,
    IMAGES,
    RNG,
    assert_same,
    kinds,
    model_of,
    predictions,
)

CUSTOM = {block.__name__: block for block in BLOCKS}


def plain(norm=layers.BatchNormalization, dropout=layers.Dropout, **options):
    """Return a model whose layers are all in its graph or in a model in it."""
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3), norm(), dropout(0.5)], name="inner"
    )
    inputs = keras.Input((4,))
    x = layers.Dense(3)(norm(**options)(inner(norm()(inputs))))
    return keras.Model(inputs, dropout(0.2)(x))


def randomised(model, seed=1):
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(rng.uniform(0.5, 2, weight.shape))
    return model


def ours(**options):
    return plain(KBatchNorm, KDropout, **options)


X = RNG.normal(size=(5, 4)).astype("float32")


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("source", "target"),
    [(plain, ours), (ours, plain), (ours, ours), (plain, plain)],
    ids=["Keras's into ours", "ours into Keras's", "ours", "Keras's"],
)
@pytest.mark.parametrize("ending", ["weights.h5", "keras"])
def test_either_kind_of_file_goes_into_either_kind_of_layers(
    source, target, ending, tmp_path
):
    saved, model = randomised(source()), randomised(target(), seed=2)
    path = tmp_path / f"saved.{ending}"
    saved.save(path) if ending == "keras" else saved.save_weights(path)
    before = kinds(model)
    kerasnorm.load_weights(model, path)
    assert kinds(model) == before
    for a, b in zip(model.weights, saved.weights, strict=True):
        np.testing.assert_array_equal(numpy(a), numpy(b))


@pytest.mark.any_backend
@pytest.mark.parametrize("block", BLOCKS)
def test_custom_layers_go_both_ways(block, tmp_path):
    theirs, path = model_of(block), tmp_path / "saved.weights.h5"
    theirs.save_weights(path)
    converted = kerasnorm.convert(theirs)
    for weight in converted.weights:
        weight.assign(weight + 1)
    kerasnorm.load_weights(converted, path)
    np.testing.assert_allclose(
        predictions(converted), predictions(theirs), rtol=1e-4, atol=1e-4
    )
    converted.save_weights(path)
    for weight in theirs.weights:
        weight.assign(weight + 1)
    kerasnorm.load_weights(theirs, path)
    assert_same(predictions(converted), predictions(theirs))


@pytest.mark.any_backend
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.filterwarnings("ignore:`build")  # of Keras, for what has no `build`
def test_a_file_of_a_converted_model_with_custom_layers(block, tmp_path):
    model, path = kerasnorm.convert(model_of(block)), tmp_path / "ours.keras"
    model.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=EAGER)
    y = RNG.normal(size=(8, 2)).astype("float32")
    model.fit(IMAGES, y, verbose=0)
    model.save(path)
    again = kerasnorm.load_model(path, custom_objects=CUSTOM)
    assert kinds(again) == kinds(model)
    np.testing.assert_array_equal(predictions(again), predictions(model))
    for one, other in zip(
        again.optimizer.variables, model.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(numpy(one), numpy(other))
    np.testing.assert_array_equal(
        numpy(again(IMAGES, training=True)), numpy(model(IMAGES, training=True))
    )


@pytest.mark.any_backend
def test_a_keras_file_of_keras_layers(tmp_path):
    theirs, path = randomised(plain()), tmp_path / "theirs.keras"
    theirs.save(path)
    for model in (
        kerasnorm.load_model(path),
        kerasnorm.convert(keras.saving.load_model(path)),
    ):
        assert kinds(model) == kinds(kerasnorm.convert(theirs))
        np.testing.assert_allclose(
            numpy(model(X)), numpy(theirs(X)), rtol=1e-5, atol=1e-5
        )
    randomised(ours()).save(path)
    back = kerasnorm.convert(keras.saving.load_model(path), to="keras")
    assert kinds(back) == kinds(theirs)


def test_a_vocabulary_is_loaded(tmp_path):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("Strings are TensorFlow's.")
    words = keras.Input((3,), dtype="string")
    lookup = layers.StringLookup(output_mode="count", name="lookup")
    lookup.adapt(np.array([["a", "c", "b"]]))
    model = keras.Model(words, layers.Dropout(0.5)(lookup(words)))
    model.save(tmp_path / "words.keras")
    again = kerasnorm.load_model(tmp_path / "words.keras")
    vocabulary = again.get_layer("lookup").get_vocabulary()
    assert vocabulary == lookup.get_vocabulary()


@pytest.mark.any_backend
def test_what_does_not_fit_is_one_error_and_nothing_is_loaded(tmp_path):
    path = tmp_path / "theirs.weights.h5"
    randomised(plain()).save_weights(path)
    model = ours(moving_average="debiased")
    before = model.get_weights()
    message = (
        r"`path` must be .* It has no for \(3,\) at '.*batch_normalization_1/vars/4"
    )
    with pytest.raises(ValueError, match=message) as caught:
        kerasnorm.load_weights(model, path)
    assert "\n" not in str(caught.value)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    keras.Sequential([keras.Input((4,)), layers.Dense(2)]).save_weights(path)
    with pytest.raises(ValueError, match=r"`path` must be a file of what"):
        kerasnorm.load_weights(ours(), path)


@pytest.mark.any_backend
@pytest.mark.parametrize(("source", "target"), [(plain, ours), (ours, plain)])
@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_skip_mismatch_of_keras_is_not_silent(source, target, tmp_path):
    path = tmp_path / "saved.weights.h5"
    source().save_weights(path)
    with pytest.raises(ValueError, match=r"could not be loaded"):
        target().load_weights(path)
    with pytest.warns(UserWarning, match=r"could not be loaded.*BatchNorm"):
        target().load_weights(path, skip_mismatch=True)


@pytest.mark.parametrize("path", ["none.keras", "none.weights.h5", "model.h5"])
def test_files_that_are_not_there_or_of_another_kind(path, tmp_path):
    (tmp_path / "model.h5").touch()
    with pytest.raises(ValueError, match=r"`path` must be an existing \.weights"):
        kerasnorm.load_weights(ours(), tmp_path / path)
    with pytest.raises(ValueError, match=r"`path` must be an existing \.keras file"):
        kerasnorm.load_model(tmp_path / path)


def test_models_that_are_not_built_and_what_is_no_model(tmp_path):
    path = tmp_path / "saved.weights.h5"
    ours().save_weights(path)
    with pytest.raises(ValueError, match="`model` must be built"):
        kerasnorm.load_weights(keras.Sequential([KBatchNorm()]), path)
    with pytest.raises(TypeError, match="must be a Keras model"):
        kerasnorm.load_weights(3, path)
