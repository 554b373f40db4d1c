"""`monte_carlo_model`: its seed is an input, its numbers are those of `monte_carlo`."""

import keras
import numpy as np
import pytest
from keras import layers

import kerasnorm
from kerasnorm import KBatchNorm, KDropout, KGaussianDropout, KSpatialDropout
from tests import oracle
from tests.kerasnorm.probes import KERAS, numpy

RNG = np.random.default_rng(0)
X = RNG.normal(1, 2, (7, 6)).astype("float32")
ENTROPIES = {"predictive_entropy", "expected_entropy", "mutual_information"}


def classifier(*last):
    keras.utils.set_random_seed(0)
    last = last or (layers.Dense(3, activation="softmax"),)
    noise = KBatchNorm(), KDropout(0.5), KGaussianDropout(0.3)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8), *noise, *last])
    for weight in model.weights:
        if "variance" not in weight.path:
            weight.assign(RNG.normal(0.3, 1, weight.shape))
    return model


def call(model, x, seed):
    return {name: numpy(y) for name, y in model([x, np.int32(seed)]).items()}


@pytest.mark.any_backend
@pytest.mark.parametrize("seed", [3, -5])
def test_the_numbers_of_monte_carlo_with_all_inputs_in_one_batch(seed):
    model = classifier()
    expected = kerasnorm.monte_carlo(model, X, 4, seed)._asdict()
    averages = call(kerasnorm.monte_carlo_model(model, 4), X, seed)
    assert set(averages) == set(expected)
    for name, average in averages.items():
        np.testing.assert_allclose(average, expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.any_backend
def test_the_masks_are_those_of_the_equations():
    model = keras.Sequential([keras.Input((50,)), KDropout(0.4)])
    averages = call(kerasnorm.monte_carlo_model(model, 1), np.ones((3, 50)), -9)
    (batch_seed,) = oracle.random_words(1, (-9 % 2**32, 0)).tolist()
    (word,) = oracle.random_words(1, (batch_seed, 0)).tolist()
    mask = oracle.keep_mask((3, 50), 0.4, (word & 0x7FFFFFFF, 0))
    np.testing.assert_array_equal(averages["mean"] > 0, mask)


@pytest.mark.any_backend
def test_a_seed_has_one_element_and_gives_the_same_masks_each_time():
    model = kerasnorm.monte_carlo_model(classifier(), 2)
    before = [numpy(v) for v in model.variables]
    first = call(model, X, 1)
    for same in (call(model, X, 1), model([X, np.array([1], "int32")])):
        for name, average in first.items():
            np.testing.assert_array_equal(average, numpy(same[name]))
    other = call(model, X, 2)
    assert not any(np.array_equal(first[name], other[name]) for name in first)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(numpy(variable), value)


@pytest.mark.any_backend
def test_the_variables_are_those_of_the_model():
    model = classifier()
    averaged = kerasnorm.monte_carlo_model(model, 2)
    before = call(averaged, X, 1)["mean"]
    model.layers[0].bias.assign_add(np.ones(8))
    expected = kerasnorm.monte_carlo(model, X, 2, 1).mean
    after = call(averaged, X, 1)["mean"]
    assert not np.allclose(before, after)
    np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.any_backend
def test_a_saved_model_draws_the_same(tmp_path):
    model = kerasnorm.monte_carlo_model(classifier(), 3)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for name, average in call(model, X, 5).items():
        np.testing.assert_array_equal(average, numpy(loaded([X, np.int32(5)])[name]))


@pytest.mark.any_backend
def test_inputs_keep_their_structure_and_dtypes():
    numbers = keras.Input((4,), dtype="int32", name="numbers")
    images = keras.Input((2, 2, 4), name="images", dtype="float16")
    embedded = layers.Embedding(9, 4)(numbers)
    noisy = KSpatialDropout(0.5)(keras.ops.cast(images, "float32"))
    y = layers.GlobalAveragePooling2D()(noisy)
    y = y + layers.GlobalAveragePooling1D()(embedded)
    model = keras.Model({"numbers": numbers, "images": images}, {"y": y})
    averaged = kerasnorm.monte_carlo_model(model, 3)
    inputs, seed = averaged.input
    assert {name: tensor.dtype for name, tensor in inputs.items()} == {
        "numbers": "int32",
        "images": "float16",
    }
    assert (seed.dtype, seed.shape, seed.name) == ("int32", (1,), "seed")
    x = {
        "numbers": RNG.integers(9, size=(5, 4), dtype="int32"),
        "images": RNG.normal(1, 2, (5, 2, 2, 4)).astype("float16"),
    }
    expected = kerasnorm.monte_carlo(model, x, 3, 1)
    averages = call(averaged, x, 1)
    assert set(averages) == {"mean", "variance"}
    np.testing.assert_allclose(averages["mean"], expected.mean, rtol=1e-5, atol=1e-6)


def of_operation(operation):
    inputs = keras.Input((6,))
    return keras.Model(inputs, operation(classifier(layers.Dense(3))(inputs)))


ENDS = {
    "softmax": (lambda: classifier(), True),
    "Softmax": (lambda: classifier(layers.Dense(3), layers.Softmax()), True),
    "Activation": (
        lambda: classifier(layers.Dense(3), layers.Activation("softmax")),
        True,
    ),
    "ops.softmax": (lambda: of_operation(keras.ops.softmax), True),
    "nested": (lambda: keras.Sequential([keras.Input((6,)), classifier()]), True),
    "one sigmoid": (lambda: classifier(layers.Dense(1, activation="sigmoid")), True),
    "three sigmoids": (
        lambda: classifier(layers.Dense(3, activation="sigmoid")),
        False,
    ),
    "another axis": (
        lambda: classifier(layers.Dense(4), layers.Reshape((2, 2)), layers.Softmax(1)),
        False,
    ),
    "linear": (lambda: classifier(layers.Dense(3)), False),
}


@pytest.mark.parametrize(("make", "has_entropies"), ENDS.values(), ids=ENDS)
def test_entropies_are_there_where_the_outputs_are_seen_to_be_probabilities(
    make, has_entropies
):
    averaged = kerasnorm.monte_carlo_model(make(), 2)
    names = {"mean", "variance"} | (ENTROPIES if has_entropies else set())
    assert set(averaged.output) == names


@pytest.mark.parametrize("shape", [(1,), (4, 3), ()])
def test_shapes_are_known_before_a_call(shape):
    units = int(np.prod(shape))
    logits = classifier(layers.Dense(units), layers.Reshape(shape))
    averaged = kerasnorm.monte_carlo_model(logits, 2, from_logits=True)
    expected = kerasnorm.monte_carlo(logits, X, 2, 1, from_logits=True)._asdict()
    for name, average in call(averaged, X, 1).items():
        assert average.shape[1:] == averaged.output[name].shape[1:]
        assert average.shape == expected[name].shape
        np.testing.assert_allclose(average, expected[name], rtol=1e-5, atol=1e-5)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="own")
        self.dropout = KDropout(0.5)

    def call(self, x):
        return self.dropout(x)


@pytest.mark.any_backend
@pytest.mark.skipif(KERAS >= (3, 12), reason="It is exported: test_exports.py.")
def test_an_older_keras_that_chooses_the_opset_is_refused(tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(ValueError, match=r"^`keras` must be at least 3\.12, .*$"):
        kerasnorm.monte_carlo_model(classifier(), 2).export(str(path), "onnx")
    assert list(tmp_path.iterdir()) == []


def test_models_that_do_not_fit():
    for model in (Subclassed(), keras.Sequential([KDropout(0.5)], name="own")):
        with pytest.raises(ValueError, match=r"functional model.*Received: 'own'"):
            kerasnorm.monte_carlo_model(model)
    inputs = keras.Input((6,))
    wrapped = kerasnorm.monte_carlo_model(keras.Model(inputs, Subclassed()(inputs)), 2)
    assert set(np.unique(call(wrapped, np.ones((4, 6)), 1)["mean"])) <= {0, 1, 2}
    with pytest.raises(ValueError, match=r"must have one output\. .* with 2\. "):
        kerasnorm.monte_carlo_model(keras.Model(inputs, [KDropout(0.5)(inputs)] * 2))
    theirs = keras.Sequential([inputs, layers.Dropout(0.5, name="theirs")])
    with pytest.raises(ValueError, match=r"with the Dropout 'theirs'\. .*convert"):
        kerasnorm.monte_carlo_model(theirs)
    with pytest.raises(ValueError, match=r"Received: samples=0\."):
        kerasnorm.monte_carlo_model(classifier(), 0)
    with pytest.raises(TypeError, match=r"Received: from_logits=1\."):
        kerasnorm.monte_carlo_model(classifier(), from_logits=1)
    with pytest.raises(TypeError, match=r"Received: model=3\."):
        kerasnorm.monte_carlo_model(3)
