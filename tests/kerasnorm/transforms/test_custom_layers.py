"""Whole models whose custom layers hold batch normalization and dropout."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasnorm
from kerasnorm import KBatchNorm, KDropout, KGaussianDropout, KSpatialDropout
from kerasnorm.transforms._layers import COUNTERPARTS
from tests.kerasnorm.probes import numpy, randomised_model

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(1, 2, (8, 6, 6, 4)).astype("float32")
# Tracing takes more time than so few steps; JAX cannot do without.
EAGER = keras.backend.backend() != "jax"


class Configured(layers.Layer):
    """A layer with one argument, the rate of its dropout."""

    def __init__(self, rate=0.5, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate
        self.make()

    def get_config(self):
        return {**super().get_config(), "rate": self.rate}


class Transformer(Configured):
    """A transformer's block: its dropouts are attributes, one of them attention's."""

    def make(self):
        self.attention = layers.MultiHeadAttention(2, 3, dropout=self.rate)
        self.norm = layers.LayerNormalization()
        self.dense = layers.Dense(4, activation="relu")
        self.dropout = layers.Dropout(self.rate, name="mine")

    def call(self, x, training=None):
        x = x + self.dropout(self.attention(x, x, training=training), training=training)
        return x + self.dropout(self.dense(self.norm(x)), training=training)


class InvertedResidual(Configured):
    """A block of MobileNet, whose layers are made in `build`."""

    def make(self):
        self.dropped = layers.SpatialDropout2D(self.rate, dtype="float32")

    def build(self, shape):
        self.expand = layers.Conv2D(8, 1, use_bias=False)
        self.expand_norm = layers.BatchNormalization(momentum=0.9, epsilon=1e-4)
        self.depthwise = layers.DepthwiseConv2D(3, padding="same", use_bias=False)
        self.depthwise_norm = layers.BatchNormalization(axis=-1)
        self.project = layers.Conv2D(4, 1, use_bias=False)
        self.project_norm = layers.BatchNormalization(trainable=False)
        self.expand.build(shape)
        wide = (*shape[:-1], 8)
        self.expand_norm.build(wide)
        self.depthwise.build(wide)
        self.depthwise_norm.build(wide)
        self.project.build(wide)
        self.project_norm.build(shape)

    def call(self, x, training=None):
        y = self.expand_norm(self.expand(x), training=training)
        y = self.depthwise_norm(self.depthwise(ops.relu(y)), training=training)
        y = self.project_norm(self.project(ops.relu(y)), training=training)
        return x + self.dropped(y, training=training)


class Containers(Configured):
    """Layers in lists, dictionaries and tuples, and one that has two names."""

    def make(self):
        self.steps = [layers.Dense(4), layers.BatchNormalization(name="listed")]
        self.named = {"norm": layers.BatchNormalization(), "noise": self.noise()}
        self.pair = (layers.Dense(4), layers.BatchNormalization())
        self.first = self.also_first = layers.BatchNormalization(name="shared")
        self.stack = keras.Sequential(
            [layers.Dense(4), layers.BatchNormalization(), layers.Dropout(self.rate)]
        )

    def noise(self):
        return layers.GaussianDropout(self.rate)

    def call(self, x, training=None):
        x = self.first(x, training=training)
        for step in (*self.steps, self.named["norm"], self.named["noise"]):
            x = step(x)
        for step in self.pair:
            x = step(x)
        return self.stack(self.also_first(x, training=training), training=training)


class Nested(Configured):
    """Custom layers in a custom layer, at a dtype policy of their own."""

    def make(self):
        self.inner = [InvertedResidual(self.rate), Containers(self.rate)]
        self.rounded = layers.Dropout(self.rate, dtype="mixed_bfloat16", seed=7)

    def call(self, x, training=None):
        for inner in self.inner:
            x = inner(x, training=training)
        return ops.cast(self.rounded(x, training=training), "float32")


BLOCKS = [Transformer, InvertedResidual, Containers, Nested]
EACH_BLOCK = pytest.mark.parametrize("block", BLOCKS)


def model_of(block, rate=0.5):
    """Return a model around a block, all its state random."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input(IMAGES.shape[1:])
    x = layers.BatchNormalization(name="outside")(block(rate, name="block")(inputs))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    return randomised_model(model)


def predictions(model, x=IMAGES):
    return numpy(model(x, training=False))


def assert_same(one, other):
    assert np.std(other) > 0.1
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def kinds(model):
    return [type(layer) for layer in model._flatten_layers()]


@pytest.mark.any_backend
@EACH_BLOCK
def test_convert_replaces_what_a_custom_layer_holds(block):
    theirs = model_of(block)
    ours = kerasnorm.convert(theirs)
    assert kinds(ours) == [COUNTERPARTS.get(kind, kind) for kind in kinds(theirs)]
    for new, old in zip(ours._flatten_layers(), theirs._flatten_layers(), strict=True):
        assert (new.name, new.path, new.trainable, new.dtype_policy, new.built) == (
            old.name,
            old.path,
            old.trainable,
            old.dtype_policy,
            old.built,
        )
        for a, b in zip(new.weights, old.weights, strict=True):
            assert (a.path, a.trainable) == (b.path, b.trainable)
            np.testing.assert_array_equal(numpy(a), numpy(b))
    assert_same(predictions(ours), predictions(theirs))
    back = kerasnorm.convert(ours, to="keras")
    assert kinds(back) == kinds(theirs)
    np.testing.assert_array_equal(predictions(back), predictions(theirs))


@pytest.mark.any_backend
def test_each_reference_is_to_the_new_layer():
    block = kerasnorm.convert(model_of(Containers)).get_layer("block")
    assert block.first is block.also_first
    held = [block.first, block.steps[1], block.named["norm"], block.pair[1]]
    held.append(block.stack.layers[1])
    assert {type(layer) for layer in held} == {KBatchNorm}
    assert type(block.named["noise"]) is KGaussianDropout
    assert type(block.stack.layers[2]) is KDropout
    held_by_keras = {id(layer) for layer in block._flatten_layers()}
    assert {id(layer) for layer in held} <= held_by_keras
    assert block.steps[1].name == "listed"
    residual = kerasnorm.convert(model_of(InvertedResidual)).get_layer("block")
    assert (residual.expand_norm.momentum, residual.expand_norm.epsilon) == (0.9, 1e-4)
    assert not residual.project_norm.trainable
    assert type(residual.dropped) is KSpatialDropout


@pytest.mark.any_backend
@EACH_BLOCK
def test_training_goes_on_as_that_of_the_original_does(block):
    """With the optimizer's slots, and dropout off: masks are others'."""
    theirs = model_of(block, rate=0.0)
    # Adam would take a rounding error for a gradient where that is 0.
    theirs.compile(keras.optimizers.SGD(1e-3, momentum=0.9), "mse", run_eagerly=EAGER)
    y = RNG.normal(size=(8, 2)).astype("float32")
    theirs.fit(IMAGES, y, batch_size=4, shuffle=False, verbose=0)
    ours = kerasnorm.convert(theirs)
    for model in (ours, theirs):
        model.fit(IMAGES, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
    assert int(ours.optimizer.iterations) == 6
    pairs = zip(ours.weights, theirs.weights, strict=True)
    changed = 0.0
    for a, b in pairs:
        np.testing.assert_allclose(numpy(a), numpy(b), rtol=2e-3, atol=2e-3)
    for a, b in zip(ours.optimizer.variables, theirs.optimizer.variables, strict=True):
        changed = max(changed, float(np.abs(numpy(a)).max()))
        np.testing.assert_allclose(numpy(a), numpy(b), rtol=2e-2, atol=2e-3)
    assert changed > 0


@pytest.mark.any_backend
@EACH_BLOCK
def test_monte_carlo_draws_in_custom_layers(block):
    model = model_of(block)
    with pytest.raises(ValueError, match=r"with the \w*Dropout.* '.*'\. .*convert"):
        kerasnorm.monte_carlo(model, IMAGES, 3)
    ours = kerasnorm.convert(model)
    assert (kerasnorm.monte_carlo(ours, IMAGES, 8, seed=1).variance > 0).all()
    assert_same(predictions(ours), predictions(model))


@pytest.mark.any_backend
def test_recalibrate_and_the_monitor_see_what_custom_layers_hold():
    model = kerasnorm.convert(model_of(Nested))
    norms = [la for la in model._flatten_layers() if isinstance(la, KBatchNorm)]
    before = [numpy(norm.moving_mean.value) for norm in norms]
    kerasnorm.recalibrate(model, IMAGES, verbose=0)
    for norm, old in zip(norms, before, strict=True):
        assert not np.allclose(numpy(norm.moving_mean.value), old)
    model.compile("sgd", "mse", run_eagerly=EAGER)
    monitor = kerasnorm.ShiftMonitor(IMAGES, tolerance=100.0)
    y = RNG.normal(size=(8, 2)).astype("float32")
    model.fit(IMAGES, y, verbose=0, callbacks=[monitor])
    assert len({row["layer"] for row in monitor.history}) == len(norms)


@pytest.mark.any_backend
def test_batch_normalization_of_keras_is_not_left_out_in_silence():
    inputs = keras.Input(IMAGES.shape[1:])
    x = KBatchNorm()(InvertedResidual(name="block")(inputs))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    message = r"has 3 BatchNormalization of Keras .* '.*block/.*'\. Those are not re"
    with pytest.warns(UserWarning, match=message):
        kerasnorm.recalibrate(model, IMAGES, verbose=0)
    model.compile("sgd", "mse", run_eagerly=EAGER)
    monitor = kerasnorm.ShiftMonitor(IMAGES, tolerance=100.0)
    with pytest.warns(UserWarning, match=message):
        model.fit(IMAGES, np.ones((8, 2)), verbose=0, callbacks=[monitor])


@pytest.mark.any_backend
@EACH_BLOCK
def test_fold_keeps_and_reports_what_custom_layers_hold(block):
    for model in (model_of(block), kerasnorm.convert(model_of(block))):
        lines = []
        folded = kerasnorm.fold(model, lines.append)
        assert_same(predictions(folded), predictions(model))
        known = {*COUNTERPARTS, *COUNTERPARTS.values()}
        inside = [la for la in model._flatten_layers() if type(la) in known]
        assert len(lines) == len(inside)
        kept = [line for line in lines if "kept, since it is part of block" in line]
        assert len(kept) == len(inside) - 1


@pytest.mark.any_backend
def test_random_state_goes_on_inside_of_custom_layers():
    model = kerasnorm.convert(model_of(Transformer))
    model(IMAGES, training=True)
    again = kerasnorm.convert(model)
    pairs = zip(model._flatten_layers(), again._flatten_layers(), strict=True)
    for one, other in pairs:
        assert type(one) is type(other)
        if isinstance(one, KDropout):
            state, copied = (numpy(la.seed_generator.state) for la in (one, other))
            np.testing.assert_array_equal(state, copied)
    np.testing.assert_array_equal(
        numpy(model(IMAGES, training=True)), numpy(again(IMAGES, training=True))
    )


@pytest.mark.any_backend
def test_all_parameters_are_trained():
    """PyTorch has its own list of them."""
    model = kerasnorm.convert(model_of(Nested, rate=0.0))
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=EAGER)
    # Before another normalization a beta or bias has no gradient.
    trained = [w for w in model.trainable_weights if w.name in ("gamma", "kernel")]
    before = [numpy(weight.value) for weight in trained]
    y = RNG.normal(size=(8, 2)).astype("float32")
    model.fit(IMAGES, y, verbose=0)
    for weight, old in zip(trained, before, strict=True):
        assert not np.array_equal(numpy(weight.value), old), weight.path
    if keras.backend.backend() == "torch":
        held = {id(p) for p in model.parameters()}
        assert held == {id(v.value) for v in model.variables}


class Always(layers.Dropout):
    """Dropout at inference too, by the usual idiom."""

    def call(self, x, training=False):
        return super().call(x, training=True)


class Holder(Configured):
    """A block with a subclass of dropout."""

    def make(self):
        self.dropout = Always(self.rate, name="always")

    def call(self, x):
        return self.dropout(x)


def test_a_subclass_is_refused_by_its_name():
    message = r"The layer '.*always' must be a Dropout .* Always, a subclass"
    with pytest.raises(ValueError, match=message) as caught:
        kerasnorm.convert(model_of(Holder))
    assert "\n" not in str(caught.value)
