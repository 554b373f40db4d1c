"""`monte_carlo`: averages over masks, and what they say of the uncertainty."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers

import kerasnorm
from kerasnorm import KBatchNorm, KDropout, KGaussianDropout, KSpatialDropout
from tests import oracle
from tests.kerasnorm.probes import numpy

RNG = np.random.default_rng(0)
# One batch of `predict`: each further shape is traced anew.
X = RNG.normal(1, 2, (30, 6)).astype("float32")


def classifier(*noise, activation="softmax"):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, activation="relu"),
            KBatchNorm(),
            *noise,
            layers.Dense(3, activation=activation),
        ]
    )
    for weight in model.weights:
        if "variance" not in weight.path:
            weight.assign(RNG.normal(0.3, 1, weight.shape))
    return model


def test_mean_and_variance_over_every_mask_of_two_units():
    model = keras.Sequential([keras.Input((2,)), KDropout(0.25), layers.Dense(1)])
    kernel, bias = np.array([[2.0], [-3.0]]), np.array([0.5])
    model.layers[-1].set_weights([kernel, bias])
    x = RNG.normal(1, 1, (1, 2)).repeat(50, axis=0).astype("float32")
    result = kerasnorm.monte_carlo(model, x, samples=400, seed=1, batch_size=50)
    masks = np.array(list(itertools.product([0, 1], repeat=2)))
    weights = np.prod(np.where(masks, 0.75, 0.25), axis=1)
    outputs = (masks / 0.75 * x[0]) @ kernel + bias
    mean = weights @ outputs
    variance = weights @ (outputs - mean) ** 2
    draws = 50 * 400
    error = np.sqrt(variance / draws)
    assert abs(result.mean.mean() - mean[0]) < 5 * error[0]
    assert result.variance.mean() == pytest.approx(variance[0], rel=0.05)
    assert result.predictive_entropy is None
    assert result.mutual_information is None


@pytest.mark.any_backend
def test_moments_and_entropies_are_those_of_the_draws():
    model = classifier(KDropout(0.5))
    prefixes = [
        kerasnorm.monte_carlo(model, X, samples=s, seed=3, batch_size=15)
        for s in range(1, 4)
    ]
    # The s-th draw from the means of the first s - 1 and s draws.
    means = [p.mean.astype("float64") for p in prefixes]
    draws = np.array(
        [means[0]] + [(s + 1) * means[s] - s * means[s - 1] for s in range(1, 3)]
    )
    assert draws.std(axis=0).max() > 0.05

    def entropy(p):
        p = np.clip(p, 1e-12, 1)
        return -(p * np.log(p)).sum(-1)

    last = prefixes[-1]
    np.testing.assert_allclose(last.variance, draws.var(0), atol=1e-4)
    expected = entropy(draws.mean(0))
    np.testing.assert_allclose(last.predictive_entropy, expected, atol=1e-4)
    np.testing.assert_allclose(last.expected_entropy, entropy(draws).mean(0), atol=1e-3)
    np.testing.assert_allclose(
        last.mutual_information,
        last.predictive_entropy - last.expected_entropy,
        atol=1e-6,
    )
    assert (last.mutual_information > -1e-6).all()


def test_batch_normalization_is_as_at_inference():
    model = classifier(KDropout(1e-9))
    result = kerasnorm.monte_carlo(model, X, samples=3, seed=0)
    np.testing.assert_allclose(result.mean, model.predict(X, verbose=0), atol=1e-6)
    assert result.variance.max() < 1e-10


def test_a_seed_gives_the_same_masks_and_no_variable_changes():
    """Of a seed the low 32 bits count."""
    noise = [KGaussianDropout(0.4), KDropout(0.4, seed=5)]
    model = classifier(*noise)
    before = [numpy(v) for v in model.variables]
    one, same, other = (
        kerasnorm.monte_carlo(model, X, 10, seed) for seed in (7, 7 - 2**70, 8)
    )
    for a, b, c in zip(one, same, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(numpy(variable), value)
    assert not any(layer.monte_carlo for layer in noise)


def test_a_prediction_is_printed_as_its_shapes():
    model = keras.Sequential([keras.Input((3,)), KDropout(0.5), layers.Dense(2)])
    prediction = kerasnorm.monte_carlo(model, np.ones((4, 3), "float32"), samples=2)
    assert repr(prediction) == (
        "MonteCarloPrediction(mean=<float32 (4, 2)>, variance=<float32 (4, 2)>, "
        "predictive_entropy=None, expected_entropy=None, mutual_information=None)"
    )


def test_every_sample_layer_and_batch_has_masks_of_its_own():
    model = keras.Sequential([keras.Input((1000,)), KDropout(0.5, seed=1)])
    x = np.ones((8, 1000), "float32")
    one, two = (
        kerasnorm.monte_carlo(model, x, s, seed=0, batch_size=4).mean for s in (1, 2)
    )
    masks = [*one, *(2 * two - one)]
    for a, b in itertools.combinations(masks, 2):
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.2
    twice = keras.Sequential(
        [keras.Input((1000,)), KDropout(0.5, seed=1), KDropout(0.5, seed=1)]
    )
    kept = kerasnorm.monte_carlo(twice, x, 1, seed=0).mean > 0
    assert abs(kept.mean() - 0.25) < 0.05


def test_logits_and_probabilities():
    logits = classifier(KDropout(0.5), activation=None)
    probabilities = keras.Sequential([logits, layers.Softmax()])
    a = kerasnorm.monte_carlo(logits, X, 20, seed=1, from_logits=True)
    b = kerasnorm.monte_carlo(probabilities, X, 20, seed=1)
    for ours, theirs in zip(a, b, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    np.testing.assert_allclose(a.mean.sum(-1), 1, atol=1e-5)


def test_builtin_dropout_after_convert_and_layers_inside_of_others():
    nested = keras.Sequential([keras.Input((6,)), layers.Dropout(0.5)])
    inputs = keras.Input((4, 6))
    x = layers.TimeDistributed(nested)(inputs)
    x = layers.SpatialDropout1D(0.5)(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    data = RNG.normal(size=(5, 4, 6)).astype("float32")
    with pytest.raises(ValueError, match=r"all of kerasnorm.*convert"):
        kerasnorm.monte_carlo(model, data)
    ours = kerasnorm.convert(model)
    assert any(isinstance(la, KSpatialDropout) for la in ours.layers)
    assert (kerasnorm.monte_carlo(ours, data, 20, seed=1).variance > 0).all()


@pytest.mark.any_backend
def test_several_inputs():
    one, two = keras.Input((3,), name="one"), keras.Input((3,), name="two")
    model = keras.Model(
        {"one": one, "two": two}, KDropout(0.5)(layers.Add()([one, two]))
    )
    data = {"one": X[:, :3], "two": X[:, 3:]}
    result = kerasnorm.monte_carlo(model, data, 200, seed=1, batch_size=7)
    assert result.mean.shape == (30, 3)
    total = data["one"] + data["two"]
    np.testing.assert_allclose(result.variance, total**2, rtol=0.2, atol=1e-3)


def test_builtin_dropout_that_drops_nothing_does_not_matter():
    inputs = keras.Input((5, 6))
    x = layers.MultiHeadAttention(2, 3)(inputs, inputs)
    model = keras.Model(inputs, KDropout(0.5)(layers.Dropout(0)(x)))
    assert kerasnorm.monte_carlo(model, X.reshape(-1, 5, 6), 20).variance.min() > 0


@pytest.mark.parametrize("argument", ["samples", "batch_size"])
@pytest.mark.parametrize(
    ("value", "error"),
    [(0, ValueError), (-3, ValueError), (2.5, TypeError), (True, TypeError)],
)
def test_bad_numbers(argument, value, error):
    with pytest.raises(error, match=f"Received: {argument}={value}"):
        kerasnorm.monte_carlo(classifier(KDropout(0.5)), X, **{argument: value})


def test_models_and_inputs_that_do_not_fit():
    mixed = keras.Sequential(
        [keras.Input((6,)), KDropout(0.5), layers.Dropout(0.5, name="theirs")]
    )
    with pytest.raises(ValueError, match=r"with the Dropout 'theirs'\. .*convert"):
        kerasnorm.monte_carlo(mixed, X)
    attention = layers.MultiHeadAttention(2, 3, dropout=0.2)
    inputs = keras.Input((5, 6))
    x = KDropout(0.5)(attention(inputs, inputs))
    attentive = keras.Model(inputs, x)
    with pytest.raises(ValueError, match=r"with the Dropout '.*'\. .*convert"):
        kerasnorm.monte_carlo(attentive, X.reshape(-1, 5, 6))
    inputs = keras.Input((6,))
    dropped = KDropout(0.5)(inputs)
    with pytest.raises(ValueError, match="must have one output"):
        kerasnorm.monte_carlo(keras.Model(inputs, [dropped, inputs]), X)
    with pytest.raises(TypeError, match="`x` must be an array"):
        kerasnorm.monte_carlo(classifier(KDropout(0.5)), object())
    with pytest.raises(ValueError, match="`x` must be a batch with at least one"):
        kerasnorm.monte_carlo(classifier(KDropout(0.5)), X[:0])
    with pytest.raises(TypeError, match=r"Received: model=3\."):
        kerasnorm.monte_carlo(3, X)


def test_entropies_in_half_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = classifier(KDropout(0.5))
        assert kerasnorm.monte_carlo(model, X, 5).mutual_information is not None
    finally:
        keras.config.set_dtype_policy("float32")


def test_without_a_seed_each_call_draws_anew():
    model = keras.Sequential([keras.Input((6,)), KDropout(0.5)])
    one, other = (kerasnorm.monte_carlo(model, X, 2).mean for _ in range(2))
    assert not np.array_equal(one, other)


@pytest.mark.any_backend
def test_every_backend_draws_the_same():
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(4), KBatchNorm(), KDropout(0.4)]
    )
    x = X[:3]
    prediction = kerasnorm.monte_carlo(model, x, samples=6, seed=11)
    (batch_seed,) = oracle.random_words(1, (11, 0)).tolist()
    y = numpy(model(x, training=False))
    draws = []
    for sample in range(6):
        (word,) = oracle.random_words(1, (batch_seed, sample)).tolist()
        mask = oracle.keep_mask(y.shape, 0.4, (word & 0x7FFFFFFF, 0))
        draws.append(oracle.inverted_dropout(y, mask, 0.4))
    close = {"rtol": 2e-5, "atol": 2e-5}
    np.testing.assert_allclose(prediction.mean, np.mean(draws, 0), **close)
    np.testing.assert_allclose(prediction.variance, np.var(draws, 0), **close)


def binary_entropy(p):
    p = np.clip(p.astype("float64"), 1e-12, 1 - 1e-12)
    return -(p * np.log(p) + (1 - p) * np.log(1 - p))


def detector(*last):
    """Make a model of two classes, of which it gives the probability of one."""
    model = keras.Sequential([keras.Input((6,)), KDropout(0.5), *last])
    kernel = np.array([[0.3], [-0.2], [0.4], [0.1], [-0.5], [0.2]])
    model.set_weights([kernel, np.array([0.1])])
    return model


ONE_CLASS = {
    "Dense": lambda: detector(layers.Dense(1, activation="sigmoid")),
    "Activation": lambda: detector(layers.Dense(1), layers.Activation("sigmoid")),
    "(batch,)": lambda: detector(
        layers.Dense(1, activation="sigmoid"), layers.Reshape(())
    ),
    "nested": lambda: keras.Sequential(
        [keras.Input((6,)), detector(layers.Dense(1, activation="sigmoid"))]
    ),
    "an operation, in a dictionary": lambda: of_operation(),
}


def of_operation():
    inputs = keras.Input((6,))
    logits = detector(layers.Dense(1))(inputs)
    return keras.Model(inputs, {"probability": keras.ops.sigmoid(logits)})


@pytest.mark.any_backend
@pytest.mark.parametrize("make", ONE_CLASS.values(), ids=ONE_CLASS)
def test_entropies_of_one_sigmoid(make):
    one = kerasnorm.monte_carlo(make(), X, 1, seed=1)
    assert one.mean.shape in {(30, 1), (30,)}
    p = one.mean.reshape(30)
    assert p.std() > 0.01
    for found in (one.predictive_entropy, one.expected_entropy):
        assert found.shape == (30,)
        np.testing.assert_allclose(found, binary_entropy(p), rtol=1e-4, atol=1e-5)
    two = kerasnorm.monte_carlo(make(), X, 2, seed=1)
    other = 2 * two.mean.reshape(30) - p
    expected = (binary_entropy(p) + binary_entropy(other)) / 2
    np.testing.assert_allclose(two.expected_entropy, expected, rtol=1e-3, atol=1e-4)
    both = binary_entropy((p + other) / 2)
    np.testing.assert_allclose(two.predictive_entropy, both, rtol=1e-3, atol=1e-4)
    assert (two.mutual_information > 0).any()


def test_logits_of_one_class():
    logits = kerasnorm.monte_carlo(detector(layers.Dense(1)), X, 9, 1, from_logits=True)
    last = layers.Dense(1, activation="sigmoid")
    probabilities = kerasnorm.monte_carlo(detector(last), X, 9, 1)
    for one, other in zip(logits, probabilities, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.any_backend
@pytest.mark.parametrize("shape", [(1,), ()])
def test_one_number_that_is_no_probability_has_no_entropies(shape):
    """Even if it lies in [0, 1], as a regression's output may."""
    model = detector(layers.Dense(1), layers.Reshape(shape))
    model.set_weights([np.zeros((6, 1)), np.ones(1)])
    result = kerasnorm.monte_carlo(model, X, 3)
    np.testing.assert_array_equal(result.mean, np.ones((30, *shape)))
    assert result[2:] == (None, None, None)


@pytest.mark.any_backend
def test_outputs_of_rank_1():
    model = detector(layers.Dense(1), layers.Reshape(()))
    result = kerasnorm.monte_carlo(model, X, 5, seed=3, batch_size=7)
    column = detector(layers.Dense(1))
    expected = kerasnorm.monte_carlo(column, X, 5, seed=3, batch_size=7)
    np.testing.assert_allclose(result.mean, expected.mean[:, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        result.variance, expected.variance[:, 0], rtol=1e-4, atol=1e-6
    )


class Subclassed(keras.Model):
    def __init__(self, outputs):
        super().__init__()
        self.dropout, self.dense = KDropout(0.5), layers.Dense(3, activation="softmax")
        self.make_outputs = outputs

    def call(self, x):
        return self.make_outputs(self.dense(self.dropout(x)))


@pytest.mark.any_backend
def test_one_output_of_a_subclassed_model_that_was_never_called():
    for outputs in (lambda y: y, lambda y: {"y": y}, lambda y: [y]):
        keras.utils.set_random_seed(0)
        result = kerasnorm.monte_carlo(Subclassed(outputs), X, 4, seed=1)
        assert result.mean.shape == (30, 3)
        assert (result.mutual_information > 0).any()
    model = Subclassed(lambda y: {"one": y, "two": y})
    with pytest.raises(ValueError, match=r"must have one output\. .* with 2\. "):
        kerasnorm.monte_carlo(model, X)


class AlwaysOn(layers.Dropout):
    def call(self, inputs):
        return super().call(inputs, training=True)


@pytest.mark.parametrize(
    ("layer", "received"),
    [
        (
            layers.LSTM(3, dropout=0.2, name="r"),
            r"the LSTM 'r', which has dropout=0",
        ),
        (layers.GRU(3, recurrent_dropout=0.5), r"the GRU .*recurrent_dropout=0\.5"),
        (layers.SimpleRNN(3, dropout=0.1), r"the SimpleRNN '.*', which has dropout"),
        (
            layers.Bidirectional(layers.LSTM(3, dropout=0.1)),
            r"the LSTM '.*', which has dropout=0\.1",
        ),
        (layers.RNN(layers.GRUCell(3, dropout=0.1)), "the GRUCell '.*', which has"),
        (layers.AlphaDropout(0.3, name="a"), "the AlphaDropout 'a'"),
        (layers.SpatialDropout1D(0.3, name="s"), "the SpatialDropout1D 's'"),
        (AlwaysOn(0.3, name="own"), "the AlwaysOn 'own'"),
    ],
)
def test_dropout_that_would_be_left_out_is_named(layer, received):
    inputs = keras.Input((4, 6))
    model = keras.Model(inputs, layers.Flatten()(layer(KDropout(0.5)(inputs))))
    with pytest.raises(ValueError, match=rf"Received: .* with {received}") as caught:
        kerasnorm.monte_carlo(model, np.zeros((2, 4, 6)))
    assert "\n" not in str(caught.value)


def test_recurrent_layers_without_dropout_of_their_own():
    inputs = keras.Input((4, 6))
    model = keras.Model(inputs, layers.LSTM(3)(KDropout(0.5)(inputs)))
    assert kerasnorm.monte_carlo(model, RNG.normal(size=(2, 4, 6)), 9).variance.all()


def test_a_model_without_dropout():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    with pytest.raises(ValueError, match=r"must have dropout layers.* with none\. "):
        kerasnorm.monte_carlo(model, X)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (X[:, :5], ValueError, r"that 'classifier' takes, \(None, 6\).*x=\(30, 5\)"),
        (X[:, :, None, None], ValueError, r"Received: x=\(30, 6, 1, 1\)"),
        ([X, X], ValueError, r"Received: x=\[\(30, 6\), \(30, 6\)\]"),
        ("data", TypeError, r"`x` must be an array .*x='data'"),
        (np.float32(1), ValueError, r"x=\[\(\)\]"),
        (np.full((4, 6), "word"), ValueError, r"must be of numbers.*Received: x='<U4'"),
        (
            np.full((4, 6), None),
            ValueError,
            r"must be of numbers.*Received: x='object'",
        ),
    ],
)
def test_inputs_that_do_not_fit_the_model(x, error, message):
    model = keras.Sequential(
        [keras.Input((6,)), KDropout(0.5), layers.Dense(3)], name="classifier"
    )
    with pytest.raises(error, match=message) as caught:
        kerasnorm.monte_carlo(model, x)
    assert "\n" not in str(caught.value)


@pytest.mark.any_backend
def test_inputs_that_a_subclassed_model_refuses():
    model = Subclassed(lambda y: y)
    model(X)
    received = r"`x` must be what .* Received: x=\(1, 5\)\. It says: Input 0 "
    with pytest.raises(ValueError, match=received) as caught:
        kerasnorm.monte_carlo(model, X[:, :5])
    assert "\n" not in str(caught.value)
