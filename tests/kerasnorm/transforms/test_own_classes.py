"""Whole models of functional classes with a constructor of their own, as KerasHub's."""

import keras
import numpy as np
import pytest
from keras import layers

import kerasnorm
from kerasnorm import KBatchNorm, KDropout
from tests.kerasnorm.probes import numpy

RNG = np.random.default_rng(0)
X = RNG.normal(1, 2, (6, 5)).astype("float32")


class Forgetful(layers.Layer):
    """A layer that cannot be made of its configuration."""

    def __init__(self, units):
        super().__init__(name="forgetful")
        self.dense = layers.Dense(units)
        self.dropout = layers.Dropout(0.5)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x, training=None):
        return self.dropout(self.dense(x), training=training)

    def get_config(self):
        return {**super().get_config(), "neurons": 4}


class Complete(keras.Model):
    """A model whose configuration is whole, though that of a layer is not."""

    def __init__(self, units, **kwargs):
        inputs = keras.Input((5,))
        norm = layers.BatchNormalization(name="norm")
        x = norm(layers.Dense(units, name="dense")(inputs))
        x = Forgetful(units)(x)
        super().__init__(inputs, layers.Dropout(0.5)(x), **kwargs)
        self.norm = norm
        self.units = units

    def get_config(self):
        return {"name": self.name, "units": self.units}

    def double(self):
        return 2 * self.units


class Incomplete(keras.Model):
    """A model whose configuration lacks an argument that changes no weight."""

    def __init__(self, units=4, activation="relu", **kwargs):
        inputs = keras.Input((5,))
        x = layers.Dense(units, activation=activation, name="dense")(inputs)
        x = layers.BatchNormalization(name="norm")(x)
        super().__init__(inputs, layers.Dropout(0.5)(x), **kwargs)
        self.units = units

    def get_config(self):
        return {"name": self.name, "units": self.units}


class Unconfigured(keras.Model):
    """A model that has no configuration."""

    def __init__(self, things):
        inputs = keras.Input((5,))
        x = layers.BatchNormalization(name="norm")(layers.Dense(4)(inputs))
        super().__init__(inputs, layers.Dropout(0.5)(x))

    def get_config(self):
        raise NotImplementedError("No configuration.")


class Doubling(keras.Model):
    """A model that does not run its graph alone."""

    def __init__(self, **kwargs):
        inputs = keras.Input((5,))
        super().__init__(inputs, layers.BatchNormalization()(inputs), **kwargs)

    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)

    def get_config(self):
        return {"name": self.name}


MODELS = {
    "complete": lambda: Complete(4),
    "incomplete": lambda: Incomplete(4, "tanh"),
    "unconfigured": lambda: Unconfigured(object()),
}
EACH = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)


@pytest.mark.any_backend
def test_frozen_layers_stay_frozen_and_the_class_stays():
    model = Complete(4)
    model.norm.trainable = False
    ours = kerasnorm.convert(model)
    assert type(ours) is Complete
    assert (ours.norm.trainable, ours.get_layer("dense").trainable) == (False, True)
    model.trainable = False
    ours = kerasnorm.convert(model)
    assert type(ours) is Complete
    assert not ours.trainable_weights
    assert not ours.trainable


def randomised(model):
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if weight.name in ("moving_variance", "gamma"):
            weight.assign(rng.uniform(0.5, 2, weight.shape))
        elif "kernel" not in weight.name:
            weight.assign(rng.normal(0, 0.3, weight.shape))
    return model


def nested(make):
    inputs = keras.Input((5,))
    return keras.Model(inputs, layers.Dense(3)(make()(inputs)))


def assert_same(one, other):
    expected = numpy(other(X, training=False))
    assert expected.std() > 0.1
    found = numpy(one(X, training=False))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.any_backend
@EACH
def test_convert_and_back(make):
    model = randomised(make())
    ours = kerasnorm.convert(model)
    found = [type(layer) for layer in ours._flatten_layers()]
    assert KBatchNorm in found
    assert KDropout in found
    assert not {layers.BatchNormalization, layers.Dropout} & set(found)
    assert_same(ours, model)
    assert_same(kerasnorm.convert(ours, to="keras"), model)
    prediction = kerasnorm.monte_carlo(ours, X, 8, seed=1)
    assert prediction.variance.max() > 0


@pytest.mark.any_backend
def test_the_class_stays_where_its_configuration_is_whole():
    model = kerasnorm.convert(Complete(4, name="mine"))
    assert type(model) is Complete
    assert (model.name, model.double()) == ("mine", 8)
    assert type(model.norm) is KBatchNorm
    for make in ("incomplete", "unconfigured"):
        other = MODELS[make]()
        plain = kerasnorm.convert(other)
        assert type(plain) is type(nested(MODELS[make]))
        names = [layer.name for layer in other.layers]
        assert [layer.name for layer in plain.layers] == names


@pytest.mark.any_backend
@pytest.mark.parametrize("make", ["complete", "incomplete"])
def test_in_a_model_of_the_users_own(make):
    model = randomised(nested(MODELS[make]))
    ours = kerasnorm.convert(model)
    assert_same(ours, model)
    assert KBatchNorm in map(type, ours._flatten_layers())
    for each in (model, ours):
        lines = []
        assert_same(kerasnorm.fold(each, lines.append), each)
        assert any("norm: folded into" in line or "multiply" in line for line in lines)


@pytest.mark.any_backend
@EACH
def test_fold_takes_the_graph(make):
    for model in (randomised(make()), kerasnorm.convert(randomised(make()))):
        lines = []
        folded = kerasnorm.fold(model, lines.append)
        assert_same(folded, model)
        assert KBatchNorm not in map(type, folded.layers)
        assert layers.BatchNormalization not in map(type, folded.layers)
        assert not any(weight.name == "moving_mean" for weight in folded.weights)
        assert len(lines) == (3 if "forgetful" in str(lines) else 2)
        assert_same(folded, model)  # the original is as it was
        assert_same(model, kerasnorm.fold(model))


def test_a_call_of_its_own():
    model = randomised(Doubling(name="doubling"))
    ours = kerasnorm.convert(model)
    assert type(ours) is Doubling
    assert_same(ours, model)
    with pytest.raises(ValueError, match=r"Doubling 'doubling', .* has a `call`"):
        kerasnorm.fold(model)
    lines = []
    outer = nested(lambda: ours)
    assert_same(kerasnorm.fold(outer, lines.append), outer)
    assert [line.partition(": ")[2] for line in lines] == [
        "kept, since it is part of doubling"
    ]
