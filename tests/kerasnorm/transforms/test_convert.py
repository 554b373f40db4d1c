"""`convert`: Keras's layers for ours and back."""

import gc

import keras
import numpy as np
import pytest
from keras import layers

import kerasnorm
from kerasnorm import KBatchNorm, KDropout, KGaussianDropout, KSpatialDropout
from tests.kerasnorm.probes import HAS_RENORM

RNG = np.random.default_rng(0)
X = RNG.normal(1, 2, (16, 8, 8, 3)).astype("float32")
Y = {
    "features": RNG.normal(size=(16, 144)).astype("float32"),
    "logits": RNG.normal(size=(16, 5)).astype("float32"),
}

# XLA, which JAX cannot do without, takes more time than so few steps.
JIT_COMPILE = keras.backend.backend() == "jax"
# Of keras.applications the one with the most kinds of layers.
SMALL = ("EfficientNetB0",)
# The smallest images that an architecture takes, where that is not 32.
SMALLEST = {"InceptionResNetV2": 75, "InceptionV3": 75, "Xception": 71}
# Families without normalization and dropout, and the one of each that is looked at.
BARE = {"ConvNeXt": "ConvNeXtTiny", "VGG": "VGG16"}


def squared_error(true, predicted):
    """Return the squared error; Keras knows no loss of this name."""
    return keras.ops.mean(keras.ops.square(true - predicted), -1)


def model_of_everything():
    """Shared, nested, wrapped and frozen layers; policies, regularizers."""
    images = keras.Input((8, 8, 3))
    # First, as rounding to float16 makes a large difference of a small one.
    x = layers.SpatialDropout2D(0.3, name="maps", dtype="mixed_float16")(images)
    x = layers.Conv2D(4, 3)(x)
    x = layers.BatchNormalization(
        name="norm",
        momentum=0.9,
        epsilon=1e-4,
        gamma_regularizer=keras.regularizers.L2(0.01),
        beta_constraint=keras.constraints.MaxNorm(2.0),
    )(x)
    nested = keras.Sequential(
        [
            keras.Input((6, 6, 4)),
            layers.BatchNormalization(trainable=False, name="frozen"),
            layers.Dropout(0.2, name="drop", seed=3),
        ],
        name="nested",
    )
    x = nested(x)
    x = layers.TimeDistributed(layers.BatchNormalization(), name="steps")(x)
    shared = layers.BatchNormalization(name="shared")
    x = layers.Add()([shared(x), shared(layers.ReLU()(x))])
    x = layers.Flatten()(layers.Lambda(lambda t: t * 2)(x))
    x = layers.GaussianDropout(0.1, name="noise")(x)
    renorm = {"renorm": True} if HAS_RENORM else {}
    features = layers.BatchNormalization(**renorm, name="features")(x)
    model = keras.Model(
        images, {"logits": layers.Dense(5, name="logits")(x), "features": features}
    )
    optimizer = keras.optimizers.AdamW(1e-3, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta"])
    model.compile(
        optimizer,
        loss={"logits": squared_error, "features": "mse"},
        metrics={"logits": [keras.metrics.MeanAbsoluteError()]},
        jit_compile=JIT_COMPILE,
    )
    return model


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(0)
    model = model_of_everything()
    model.fit(X, Y, epochs=2, batch_size=4, verbose=0)
    return model


def types(model):
    return [type(layer) for layer in model._flatten_layers()]


def assert_same_predictions(one, other, x):
    for ours, theirs in zip(
        keras.tree.flatten(one.predict(x, verbose=0)),
        keras.tree.flatten(other.predict(x, verbose=0)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
        assert np.isfinite(ours).all()
        assert ours.std() > 0


@pytest.mark.any_backend
def test_every_layer_becomes_ours(trained):
    model = kerasnorm.convert(trained)
    expected = {
        layers.BatchNormalization: KBatchNorm,
        layers.Dropout: KDropout,
        layers.SpatialDropout2D: KSpatialDropout,
        layers.GaussianDropout: KGaussianDropout,
    }
    assert types(model) == [expected.get(t, t) for t in types(trained)]
    assert [la.name for la in model.layers] == [la.name for la in trained.layers]
    assert_same_predictions(model, trained, X)


def test_configurations_are_carried_over(trained):
    model = kerasnorm.convert(trained)
    norm = model.get_layer("norm")
    assert (norm.momentum, norm.epsilon) == (0.9, 1e-4)
    assert norm.gamma_regularizer.l2 == pytest.approx(0.01)
    assert norm.beta_constraint.max_value == 2.0
    assert model.get_layer("maps").dtype_policy.name == "mixed_float16"
    assert not model.get_layer("nested").get_layer("frozen").trainable
    assert model.get_layer("nested").get_layer("drop").seed == 3
    assert model.get_layer("features").renorm == HAS_RENORM
    assert len(model.trainable_variables) == len(trained.trainable_variables)


def test_the_original_is_left_as_it_is(trained):
    before = [keras.ops.convert_to_numpy(w) for w in trained.weights]
    kinds = types(trained)
    model = kerasnorm.convert(trained)
    for weight in model.weights:
        weight.assign(weight + 1)
    assert types(trained) == kinds
    for weight, value in zip(trained.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), value)


@pytest.mark.any_backend
def test_the_compiled_state_is_kept_and_training_goes_on(trained):
    model = kerasnorm.convert(trained)
    assert model.optimizer.get_config() == trained.optimizer.get_config()
    for ours, theirs in zip(
        model.optimizer.variables, trained.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(ours), keras.ops.convert_to_numpy(theirs)
        )
    assert trained.evaluate(X, Y, verbose=0) == pytest.approx(
        model.evaluate(X, Y, verbose=0), rel=1e-4
    )
    assert "logits_mean_absolute_error" in str(
        model.evaluate(X, Y, verbose=0, return_dict=True)
    )
    steps = int(model.optimizer.iterations)
    model.fit(X, Y, epochs=2, batch_size=8, verbose=0)
    assert int(model.optimizer.iterations) == steps + 4


def test_what_does_not_decay_still_does_not(trained):
    decays = kerasnorm.convert(trained)
    pairs = zip(decays.trainable_variables, trained.trainable_variables, strict=True)
    kept = [
        (
            decays.optimizer._use_weight_decay(ours),
            trained.optimizer._use_weight_decay(theirs),
        )
        for ours, theirs in pairs
    ]
    assert all(ours == theirs for ours, theirs in kept)
    assert {ours for ours, _ in kept} == {True, False}


@pytest.mark.any_backend
def test_converted_without_dropout_it_trains_as_the_original_does():
    keras.utils.set_random_seed(1)
    theirs = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(5, use_bias=False),
            layers.BatchNormalization(momentum=0.8),
            layers.ReLU(),
            layers.Dense(2),
        ]
    )
    theirs.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=JIT_COMPILE)
    x = RNG.normal(2, 3, (32, 6)).astype("float32")
    y = RNG.normal(size=(32, 2)).astype("float32")
    theirs.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    ours = kerasnorm.convert(theirs)
    for model in (ours, theirs):
        model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


@pytest.mark.any_backend
def test_there_and_back(trained):
    back = kerasnorm.convert(kerasnorm.convert(trained), to="keras")
    assert types(back) == types(trained)
    assert_same_predictions(back, trained, X)
    for one, other in zip(
        back._flatten_layers(), trained._flatten_layers(), strict=True
    ):
        assert one.dtype_policy.name == other.dtype_policy.name
        if not isinstance(one, (keras.Model, layers.Lambda)):
            assert one.get_config() == other.get_config()


@pytest.mark.parametrize(
    ("layer", "option"),
    [
        (KBatchNorm(moving_average="debiased", name="it"), "moving_average='debiased'"),
        (KBatchNorm(bessel_correction=True, name="it"), "bessel_correction=True"),
        (KBatchNorm(virtual_batch_size=4, name="it"), "virtual_batch_size=4"),
        (KBatchNorm(axis=(1, 2), name="it"), r"axis=\(1, 2\)"),
        (KDropout(0.5, scale_at="inference", name="it"), "scale_at='inference'"),
        (KDropout(0.5, monte_carlo=True, name="it"), "monte_carlo=True"),
        (
            KDropout(keras.optimizers.schedules.CosineDecay(0.5, 10), name="it"),
            "rate=<.*CosineDecay",
        ),
        (
            KSpatialDropout(0.5, data_format="channels_first", name="it"),
            "data_format='channels_first'",
        ),
    ],
)
def test_an_option_that_keras_lacks_is_named(layer, option):
    model = keras.Sequential([keras.Input((4, 5)), layer])
    with pytest.raises(ValueError, match=f"The layer 'it' .* Received: {option}"):
        kerasnorm.convert(model, to="keras")


def test_renorm_where_keras_has_none(monkeypatch):
    monkeypatch.setattr("kerasnorm.transforms.convert.has_renorm", lambda: False)
    inputs = keras.Input((5,))
    norm = KBatchNorm(name="norm", momentum=0.7)
    back = kerasnorm.convert(keras.Model(inputs, norm(inputs)), to="keras")
    assert type(back.get_layer("norm")) is layers.BatchNormalization
    assert back.get_layer("norm").momentum == 0.7
    norm = KBatchNorm(name="norm", renorm=True)
    with pytest.raises(ValueError, match=r"The layer 'norm' .* Received: renorm=True"):
        kerasnorm.convert(keras.Model(inputs, norm(inputs)), to="keras")


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "attention",
    [
        layers.MultiHeadAttention(2, 3, dropout=0.3, seed=1, name="attention"),
        layers.GroupQueryAttention(3, 4, 2, name="attention"),
    ],
)
def test_attention_has_our_dropout_inside(attention):
    inputs = keras.Input((5, 4))
    x = layers.BatchNormalization()(attention(inputs, inputs))
    model = keras.Model(inputs, layers.Dropout(0.5)(x))
    x = RNG.normal(size=(6, 5, 4)).astype("float32")
    model(x, training=True)
    ours = kerasnorm.convert(model)
    assert types(ours)[-2:] == [KBatchNorm, KDropout]
    assert ours.get_layer("attention").get_config() == attention.get_config()
    inside = types(ours.get_layer("attention"))
    assert KDropout in inside
    assert layers.Dropout not in inside
    back = kerasnorm.convert(ours, to="keras")
    assert types(back) == types(model)
    for other in (ours, back, kerasnorm.fold(ours)):
        assert_same_predictions(other, model, x)


@pytest.mark.any_backend
@pytest.mark.parametrize("rank", [3, 4, 5])
def test_spatial_dropout_of_every_rank(rank):
    theirs = getattr(layers, f"SpatialDropout{rank - 2}D")
    model = keras.Sequential([keras.Input((4,) * (rank - 1)), theirs(0.25, seed=1)])
    ours = kerasnorm.convert(model)
    assert types(ours)[-1] is KSpatialDropout
    assert ours.layers[0].rate == 0.25
    assert types(kerasnorm.convert(ours, to="keras"))[-1] is theirs


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="own")
        self.norm = layers.BatchNormalization()

    def call(self, x):
        return self.norm(x)


def test_a_subclassed_model_is_refused():
    with pytest.raises(
        ValueError, match=r"functional model\. Received: Subclassed 'own'"
    ):
        kerasnorm.convert(Subclassed())


def test_a_subclassed_part_is_refused():
    images = keras.Input((4,))
    model = keras.Model(images, Subclassed()(images))
    with pytest.raises(ValueError, match=r"made of parts that Keras can make again"):
        kerasnorm.convert(model)


def half(t):
    return t / 2


class Strict(keras.regularizers.Regularizer):
    """A regularizer that nobody has registered."""

    def __call__(self, x):
        return keras.ops.sum(keras.ops.abs(x))

    def get_config(self):
        return {}


@pytest.mark.parametrize(
    "stack",
    [
        [layers.Lambda(lambda t: keras.ops.relu(t) * len(SMALL))],
        [layers.Lambda(half)],
        [layers.Dense(4, activation=half)],
        [layers.Dense(4, kernel_regularizer=Strict())],
        [layers.Normalization()],
        [layers.Discretization(num_bins=4), layers.Rescaling(1.0)],
    ],
    ids=["lambda", "function", "activation", "regularizer", "normalization", "bins"],
)
def test_parts_with_state_or_code_of_their_own(stack):
    x = RNG.normal(3, 4, (20, 6)).astype("float32")
    if hasattr(stack[0], "adapt"):
        stack[0].adapt(x)
    fresh = [type(la).from_config(la.get_config()) for la in stack[1:]]
    norm = layers.BatchNormalization()
    model = keras.Sequential([keras.Input((6,)), stack[0], *fresh, norm])
    norm.moving_mean.assign(RNG.normal(size=norm.moving_mean.shape))
    for other in (kerasnorm.convert(model), kerasnorm.fold(model)):
        assert_same_predictions(other, model, x)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="Strings are TensorFlow's."
)
def test_words_keep_their_vocabulary():
    words = keras.Input((3,), dtype="string")
    lookup = layers.StringLookup(vocabulary=["a", "b", "c"])
    x = layers.BatchNormalization()(layers.Embedding(5, 4)(lookup(words)))
    model = keras.Model(words, x)
    text = keras.ops.convert_to_tensor([["a", "c", "b"], ["c", "c", "?"]])
    ours = kerasnorm.convert(model)
    np.testing.assert_allclose(ours(text), model(text), atol=1e-6)


def test_a_model_with_a_training_step_of_its_own():
    class Own(keras.Model):
        def train_step(self, data):
            return {"own": 1.0}

    inputs = keras.Input((6,))
    model = Own(inputs, layers.BatchNormalization()(inputs))
    ours = kerasnorm.convert(model)
    assert type(ours) is Own
    assert types(ours)[-1] is KBatchNorm


def test_a_layer_frozen_after_training():
    dense, norm = layers.Dense(4), layers.BatchNormalization()
    model = keras.Sequential([keras.Input((6,)), dense, norm, layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=JIT_COMPILE)
    x = RNG.normal(size=(16, 6))
    model.fit(x, x[:, :1], verbose=0)
    dense.trainable = False
    ours = kerasnorm.convert(model)
    assert not ours.layers[0].trainable
    for a, b in zip(ours.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b)
        )


def test_metrics_are_copied_not_shared():
    metric = keras.metrics.MeanSquaredError()
    model = keras.Sequential([keras.Input((4,)), layers.BatchNormalization()])
    model.compile("sgd", "mse", metrics=[metric], jit_compile=JIT_COMPILE)
    x = RNG.normal(size=(8, 4))
    model.evaluate(x, x, verbose=0)
    before = float(metric.result())
    kerasnorm.convert(model).evaluate(x, 3 * x, verbose=0)
    assert float(metric.result()) == before


def test_a_layer_of_two_models_is_refused():
    norm = layers.BatchNormalization()
    inner = keras.Sequential([keras.Input((4,)), norm])
    inputs = keras.Input((4,))
    with pytest.raises(ValueError, match="must each belong to one model"):
        kerasnorm.convert(keras.Model(inputs, norm(inner(inputs))))


def test_bad_arguments():
    with pytest.raises(ValueError, match="Received: to='torch'"):
        kerasnorm.convert(keras.Sequential([keras.Input((3,))]), to="torch")
    with pytest.raises(TypeError, match=r"must be a Keras model\. Received: model=3"):
        kerasnorm.convert(3)


def test_a_model_that_is_not_built_yet():
    model = keras.Sequential([layers.Dense(3), layers.BatchNormalization()])
    ours = kerasnorm.convert(model)
    assert not ours.built
    assert types(ours)[-1] is KBatchNorm
    assert ours(X[:, 0, 0]).shape == (16, 3)


def architectures():
    """Return the names in keras.applications, one of each bare family."""
    names = sorted(
        name
        for name, value in vars(keras.applications).items()
        if callable(value) and name[0].isupper()
    )
    bare = tuple(BARE)
    return [n for n in names if not n.startswith(bare) or n in BARE.values()]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=() if n in SMALL else pytest.mark.slow)
        for n in architectures()
    ],
)
def test_keras_applications(name, float64_policy):
    """In float64, since hundreds of random layers amplify a rounding of float32."""
    keras.utils.set_random_seed(2)
    kind = getattr(keras.applications, name)
    shape = (SMALLEST.get(name, 32),) * 2 + (3,)
    model = kind(weights=None, classes=7, classifier_activation=None, input_shape=shape)
    replaced = (layers.BatchNormalization, layers.Dropout)
    before = [la for la in model._flatten_layers() if isinstance(la, replaced)]
    if not before:
        pytest.skip("Neither batch normalization nor dropout in it.")
    for layer in before:
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_mean.assign(RNG.normal(0, 0.1, layer.moving_mean.shape))
            layer.moving_variance.assign(
                RNG.uniform(0.5, 2, layer.moving_variance.shape)
            )
    x = RNG.uniform(0, 255, (1, *shape))
    expected = keras.ops.convert_to_numpy(model(x, training=False))
    assert np.isfinite(expected).all()
    assert expected.std() > 0
    ours = kerasnorm.convert(model)
    of_ours = (KBatchNorm, KDropout)
    after = [la for la in ours._flatten_layers() if isinstance(la, of_ours)]
    assert [la.name for la in after] == [la.name for la in before]
    assert not any(type(la) in replaced for la in ours._flatten_layers())
    tolerance = 1e-6 * np.abs(expected).max()
    found = keras.ops.convert_to_numpy(ours(x, training=False))
    np.testing.assert_allclose(found, expected, atol=tolerance)
    del model, ours
    keras.backend.clear_session()
    gc.collect()
