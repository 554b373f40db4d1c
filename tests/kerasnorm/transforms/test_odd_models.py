"""`convert` and `fold` of what users make: names, parts, weights as they come."""

import keras
import numpy as np
import pytest
from keras import layers

import kerasnorm

X = np.random.default_rng(0).normal(1, 2, (6, 8)).astype("float32")
FUNCTIONS = pytest.mark.parametrize("function", [kerasnorm.convert, kerasnorm.fold])


class Scale(layers.Layer):
    """A layer whose configuration leaves its name out."""

    def __init__(self):
        super().__init__()

    def build(self, shape):
        self.factor = self.add_weight(shape=shape[-1:], name="factor")

    def call(self, x):
        return x * self.factor

    def get_config(self):
        return {}


class Fixed(layers.Layer):
    """A layer that always has one name when it is made."""

    def __init__(self, factor):
        super().__init__(name="fixed")
        self.factor = factor

    def call(self, x):
        return {"scaled": x * self.factor, "same": x}

    def get_config(self):
        return {"factor": self.factor}


class Sum(layers.Layer):
    """A layer of two inputs, of which Sequential knows no shape."""

    def call(self, pair, training=None):
        return pair[0] + pair[1]


class Lists(layers.Layer):
    """A layer that makes its parts in `build`."""

    def build(self, shape):
        self.parts = [layers.Dense(8), layers.Dense(8), Scale()]
        for part in self.parts:
            part.build(shape)

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x


def without_names():
    x = inputs = keras.Input((8,))
    x = layers.BatchNormalization()(layers.Dense(8)(Scale()(x)))
    return keras.Model(inputs, Scale()(layers.Dropout(0.5)(x)))


def without_names_in_sequence():
    inner = keras.Sequential([keras.Input((8,)), Scale(), layers.BatchNormalization()])
    outer = [keras.Input((8,)), Scale(), inner, Scale(), layers.BatchNormalization()]
    return keras.Sequential(outer)


def renamed():
    first, second = Fixed(2.0), Fixed(3.0)
    first.name, second.name = "first", "second"
    inputs = keras.Input((8,))
    x = second(layers.Dense(8)(first(inputs)["scaled"]))
    norms = [layers.BatchNormalization()(x[key]) for key in ("same", "scaled")]
    return keras.Model(inputs, {"a": norms[0], "b": layers.Dropout(0.5)(norms[1])})


def parts_made_in_build():
    parts = [Lists(), layers.BatchNormalization(), layers.Dense(2)]
    return keras.Sequential([keras.Input((8,)), *parts])


def in_a_wrapper():
    parts = [keras.Input((4,)), Scale(), layers.Dense(8), layers.BatchNormalization()]
    inputs = keras.Input((8,))
    x = layers.TimeDistributed(keras.Sequential(parts))(layers.Reshape((2, 4))(inputs))
    return keras.Model(inputs, layers.BatchNormalization()(x[:, 0]))


def called_by_keyword():
    inputs = keras.Input((8,))
    x = layers.Masking()(layers.Reshape((4, 2))(inputs))
    mask = keras.ops.not_equal(x[..., 0], 0.0)
    norm = layers.BatchNormalization()
    return keras.Model(inputs, norm(mask=mask, inputs=layers.Dense(2)(x)))


def a_sequence_of_several_inputs():
    stack = [Sum(), layers.Dense(8), layers.BatchNormalization()]
    inputs = keras.Input((8,))
    x = keras.Sequential(stack)([inputs, layers.Dense(8)(inputs)])
    return keras.Model(inputs, layers.BatchNormalization()(x))


def with_references():
    inner = keras.Sequential(
        [keras.Input((8,)), layers.Dense(8), layers.BatchNormalization()]
    )
    inputs = keras.Input((8,))
    model = keras.Model(inputs, inner(inputs))
    model.base, model.norm = inner, inner.layers[-1]
    return model


MODELS = [
    without_names,
    without_names_in_sequence,
    renamed,
    parts_made_in_build,
    in_a_wrapper,
    called_by_keyword,
    a_sequence_of_several_inputs,
    with_references,
]


def of_random_weights(make):
    keras.utils.set_random_seed(1)
    model = make()
    model(X)  # Keras builds a Sequential model of several inputs only here
    rng = np.random.default_rng(1)
    for weight in model.weights:
        positive = rng.uniform(0.5, 2, weight.shape)
        is_kernel = "kernel" in weight.name
        weight.assign(rng.normal(0, 0.5, weight.shape) if is_kernel else positive)
    return model


@FUNCTIONS
@pytest.mark.parametrize("make", MODELS)
def test_predictions_and_names_are_kept(make, function):
    model = of_random_weights(make)
    made = function(model)
    for ours, theirs in zip(
        keras.tree.flatten(made(X, training=False)),
        keras.tree.flatten(model(X, training=False)),
        strict=True,
    ):
        ours, theirs = map(keras.ops.convert_to_numpy, (ours, theirs))
        assert theirs.std() > 0.1
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    names = [layer.name for layer in model.layers]
    if function is kerasnorm.convert:
        assert [layer.name for layer in made.layers] == names
    else:
        assert {layer.name for layer in made.layers} <= {*names, model.layers[0].name}


class Unspecific(layers.Layer):
    """A layer whose configuration lacks the number of its units."""

    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")

    def call(self, x):
        return x @ self.kernel

    def get_config(self):
        return {"name": self.name}


def lacks_an_argument():
    norm = layers.BatchNormalization()
    parts = [layers.Dense(8, name="d"), Unspecific(5, name="odd")]
    return keras.Sequential([keras.Input((8,)), norm, *parts])


def has_an_attribute_that_is_not_in_the_graph():
    inputs = keras.Input((8,))
    outer = Lists()
    outer.extra = layers.Dense(3)
    return keras.Model(inputs, layers.BatchNormalization()(outer(inputs)))


def has_two_layers_of_one_name():
    x = inputs = keras.Input((8,))
    norms = [layers.BatchNormalization(name=name) for name in ("one", "two")]
    for norm in norms:
        x = norm(x)
    model = keras.Model(inputs, x)
    norms[1].name = "one"
    return model


@FUNCTIONS
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lacks_an_argument,
            r"The layer '.*odd' must have the same weights .* kernel \(8, 5\) and "
            r"\(8, 4\)\. Give its class a `get_config`",
        ),
        (
            has_an_attribute_that_is_not_in_the_graph,
            r"must each belong to one model.* Received: \d+ layers, of which",
        ),
        (has_two_layers_of_one_name, r"different names.* 2 with the name 'one'"),
    ],
)
def test_what_cannot_be_made_again_is_refused_in_a_line(make, message, function):
    with pytest.raises(ValueError, match=message) as caught:
        function(make())
    assert "\n" not in str(caught.value)


class Tied(layers.Layer):
    """A layer that may have the kernel of another one."""

    def __init__(self, kernel_of_another=None, **kwargs):
        super().__init__(**kwargs)
        self.kernel_of_another = kernel_of_another

    def build(self, shape):
        make = self.kernel_of_another or self.add_weight
        self.kernel = make(shape=(8, 8), name="kernel")

    def call(self, x):
        return x @ self.kernel

    def get_config(self):
        return {"name": self.name}


def test_a_weight_of_two_layers_is_refused():
    first = Tied(name="first")
    parts = [
        first,
        layers.ReLU(),
        Tied(lambda **_: first.kernel),
        layers.BatchNormalization(),
    ]
    model = keras.Sequential([keras.Input((8,)), *parts])
    with pytest.raises(
        ValueError, match=r"must each belong to one layer\. Received: '"
    ):
        kerasnorm.convert(model)


def test_a_sequence_of_several_inputs_cannot_be_folded_itself():
    stack = [Sum(), layers.Dense(8), layers.BatchNormalization()]
    model = keras.Sequential(stack)
    model([X, X])
    with pytest.raises(ValueError, match="a Sequential model of several inputs"):
        kerasnorm.fold(model)
