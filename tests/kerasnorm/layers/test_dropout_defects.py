"""What Keras 3.15's dropout layers get wrong and kerasnorm's do not.

It cuts across layers/dropout.py and layers/_random.py.

Each test first shows the defect on the built-in layer, so that it tells when Keras
has mended it.
"""

import keras
import numpy as np
import pytest
from keras import layers, ops

from kerasnorm import KDropout, KGaussianDropout, KSpatialDropout
from tests import oracle
from tests.kerasnorm.probes import BACKEND

if BACKEND != "tensorflow":
    pytest.skip("The defects are seen on TensorFlow.", allow_module_level=True)

import tensorflow as tf

PAIRS = [
    (layers.Dropout, KDropout),
    (layers.SpatialDropout1D, KSpatialDropout),
    (layers.GaussianDropout, KGaussianDropout),
]
PAIR = pytest.mark.parametrize(("builtin", "ours"), PAIRS)
X = np.random.default_rng(0).normal(3, 2, (6, 4, 5)).astype("float32")


def model_of(layer):
    model = keras.Sequential([keras.Input(X.shape[1:]), layer])
    model(X, training=True)
    model(X, training=True)
    return model


def random_state(model):
    return model.layers[-1].seed_generator.state.numpy().tolist()


@PAIR
def test_keras_files_keep_the_random_state(builtin, ours, tmp_path):
    path = tmp_path / "model.keras"
    model_of(builtin(0.5, seed=1)).save(path)
    assert random_state(keras.models.load_model(path)) == [1, 0]

    model = model_of(ours(0.5, seed=1))
    model.save(path)
    loaded = keras.models.load_model(path)
    assert random_state(loaded) == [1, 2]
    np.testing.assert_array_equal(loaded(X, training=True), model(X, training=True))


@PAIR
def test_weights_files_keep_the_random_state(builtin, ours, tmp_path):
    path = tmp_path / "model.weights.h5"
    model_of(builtin(0.5, seed=1)).save_weights(path)
    other = model_of(builtin(0.5, seed=9))
    other.load_weights(path)
    assert random_state(other) == [9, 2]

    model = model_of(ours(0.5, seed=1))
    model.save_weights(path)
    other = ours(0.5, seed=9)
    loaded = keras.Sequential([keras.Input(X.shape[1:]), other])
    loaded.load_weights(path)
    assert random_state(loaded) == [1, 2]
    np.testing.assert_array_equal(loaded(X, training=True), model(X, training=True))


@PAIR
def test_checkpoints_keep_the_random_state(builtin, ours, tmp_path):
    def restored(layer_class, seed_to_restore):
        model = model_of(layer_class(0.5, seed=1))
        path = tf.train.Checkpoint(model=model).save(tmp_path / layer_class.__name__)
        other = model_of(layer_class(0.5, seed=seed_to_restore))
        status = tf.train.Checkpoint(model=other).restore(path)
        status.assert_existing_objects_matched()
        return model, other

    _, other = restored(builtin, 9)
    assert random_state(other) == [9, 2]

    model, other = restored(ours, 9)
    assert random_state(other) == [1, 2]
    np.testing.assert_array_equal(other(X, training=True), model(X, training=True))


@pytest.mark.parametrize("scheduled", [False, True])
def test_a_checkpoint_of_a_layer_restores_its_own_variables_too(scheduled, tmp_path):
    rate = 0.5
    if scheduled:
        rate = keras.optimizers.schedules.PolynomialDecay(0.9, 10, 0.1)
    layer = KDropout(rate, seed=1)
    for _ in range(3):
        layer(X, training=True)
    path = tf.train.Checkpoint(layer=layer).save(tmp_path / "layer")
    other = KDropout(rate, seed=9)
    other.build(X.shape)
    tf.train.Checkpoint(layer=other).restore(path).assert_consumed()
    np.testing.assert_array_equal(other(X, training=True), layer(X, training=True))


def test_weights_saved_with_the_built_in_layers_can_be_loaded(tmp_path):
    """They hold no random state: the layer keeps its own."""

    def model(dropout):
        return keras.Sequential(
            [keras.Input((4,)), layers.Dense(3), dropout, layers.Dense(2)]
        )

    path = tmp_path / "model.weights.h5"
    saved, loaded = model(layers.Dropout(0.5, seed=1)), model(KDropout(0.5, seed=9))
    saved.save_weights(path)
    loaded.load_weights(path)
    for one, other in zip(loaded.weights, saved.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert loaded.layers[1].seed_generator.state.numpy().tolist() == [9, 0]


@pytest.mark.parametrize(
    ("dtype", "rate", "builtin_rate"),
    [
        ("bfloat16", 0.001, 0.0078),
        ("bfloat16", 0.01, 0.0156),
        ("float16", 0.001, 0.0019),
    ],
)
def test_rates_are_exact_in_half_precision(dtype, rate, builtin_rate):
    """Within 5 standard errors of the fraction dropped; the built-in layer's is off."""
    size = 2**20
    x = ops.ones((size,), dtype)

    def fraction_dropped(layer):
        y = ops.cast(layer(x, training=True), "float64")
        return np.mean(ops.convert_to_numpy(y) == 0)

    def bound(expected):
        return 5 * np.sqrt(expected * (1 - expected) / size)

    dropped = fraction_dropped(layers.Dropout(rate, seed=1, dtype=dtype))
    assert abs(dropped - builtin_rate) < bound(builtin_rate) + 5e-5
    exact = 1 - oracle.keep_fraction(rate)
    assert abs(exact - rate) <= 2**-17
    dropped = fraction_dropped(KDropout(rate, seed=1, dtype=dtype))
    assert abs(dropped - exact) < bound(exact)


def test_the_mean_is_kept_in_half_precision():
    """Rate 0.01: Keras drops 0.0156 and scales for 0.01; ours keeps E[y] = x."""
    x = ops.full((2**20,), 100.0, "bfloat16")

    def mean(layer):
        y = ops.cast(layer(x, training=True), "float64")
        return np.mean(ops.convert_to_numpy(y))

    assert mean(layers.Dropout(0.01, seed=1, dtype="bfloat16")) < 99.6
    # 100 / 0.99 = 101.01 is 101 in bfloat16. Five standard errors are 0.05.
    expected = 101.0 * oracle.keep_fraction(0.01)
    assert abs(mean(KDropout(0.01, seed=1, dtype="bfloat16")) - expected) < 0.05


def test_a_rate_can_follow_a_schedule():
    """A traced built-in layer keeps its rate; one of rate 0 cannot even be raised."""
    builtin = layers.Dropout(0.5, seed=1)
    call = tf.function(lambda x: builtin(x, training=True))
    call(X)
    builtin.rate = 0.0
    assert np.any(call(X).numpy() == 0)

    builtin = layers.Dropout(0)
    builtin.rate = 0.5
    with pytest.raises(AttributeError):
        builtin(X, training=True)

    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.5, 0.0])
    with pytest.raises((TypeError, ValueError)):
        layers.Dropout(schedule)
    ours = KDropout(schedule, seed=1)
    ours.build(X.shape)
    call = tf.function(lambda x: ours(x, training=True))
    assert np.any(call(X).numpy() == 0)
    np.testing.assert_array_equal(call(X), X)


@pytest.mark.parametrize("layer_class", [ours for _, ours in PAIRS])
def test_a_rate_of_0_can_be_raised(layer_class):
    layer = layer_class(0, seed=1)
    np.testing.assert_array_equal(layer(X, training=True), X)
    state = layer.seed_generator.state.numpy().tolist()
    layer.rate = 0.5
    expected = layer_class(0.5, seed=1)
    expected.seed_generator.state.assign(state)
    np.testing.assert_array_equal(layer(X, training=True), expected(X, training=True))


def test_monte_carlo_dropout_survives_predict_and_export(tmp_path):
    """`training=True` at call time is overridden by a functional model's `predict`."""
    inputs = keras.Input(X.shape[1:])
    builtin = keras.Model(inputs, layers.Dropout(0.5)(inputs, training=True))
    np.testing.assert_array_equal(builtin.predict(X, verbose=0), X)

    ours = keras.Model(inputs, KDropout(0.5, seed=3, monte_carlo=True)(inputs))
    draws = [ours.predict(X, verbose=0) for _ in range(2)]
    ours.export(tmp_path / "1", verbose=False)
    served = tf.saved_model.load(tmp_path / "1")
    draws += [served.serve(X).numpy() for _ in range(2)]
    for draw, y in enumerate(draws):
        mask = oracle.keep_mask(X.shape, 0.5, (3, draw))
        np.testing.assert_allclose(y, oracle.inverted_dropout(X, mask, 0.5), rtol=3e-7)


def test_test_time_scaling():
    with pytest.raises(ValueError, match="scale_at"):
        layers.Dropout(0.25, scale_at="inference")
    layer = KDropout(0.25, scale_at="inference")
    assert set(np.unique(layer(np.ones((50, 2)), training=True))) == {0.0, 1.0}
    np.testing.assert_array_equal(layer(X), 0.75 * X)


@pytest.mark.parametrize("builtin", [layers.GaussianDropout, layers.AlphaDropout])
def test_gaussian_dropout_of_rate_1_is_refused(builtin):
    with pytest.raises(ZeroDivisionError):
        builtin(1)(X, training=True)
    with pytest.raises(ValueError, match=r"`rate` must be .*\[0, 1\).*rate=1"):
        KGaussianDropout(1)


def test_spatial_dropout_keeps_its_dtype_policy():
    builtin = layers.SpatialDropout1D(0.5, dtype="mixed_float16")
    copy = layers.SpatialDropout1D.from_config(builtin.get_config())
    assert copy.dtype_policy.name == "float32"
    with pytest.raises(TypeError):
        layers.SpatialDropout1D(0.5, trainable=False)

    ours = KSpatialDropout(0.5, dtype="mixed_float16", trainable=False)
    copy = KSpatialDropout.from_config(ours.get_config())
    assert copy.dtype_policy.name == "mixed_float16"
    assert copy.trainable is False
