"""`recalibrate`: the population statistics of Algorithm 2."""

import keras
import numpy as np
import pytest
from keras import layers

import kerasnorm
from kerasnorm import KBatchNorm, KDropout

RNG = np.random.default_rng(0)
X = RNG.gamma(2.0, 3.0, (500, 6)).astype("float32")
EPSILON = 1e-3


def norms(model):
    return [la for la in model._flatten_layers() if isinstance(la, KBatchNorm)]


def two_layers(**options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(5),
            KBatchNorm(**options),
            layers.ReLU(),
            KDropout(0.5),
            layers.Dense(4),
            KBatchNorm(**options),
        ]
    )
    for weight in model.trainable_weights:
        weight.assign(RNG.normal(0.5, 1, weight.shape))
    return model


def by_hand(model, x, correction=0):
    """NumPy in float64: each layer's population statistics, dropout off."""
    statistics, x = [], x.astype("float64")
    for layer in model.layers:
        values = [keras.ops.convert_to_numpy(w) for w in layer.trainable_weights]
        if isinstance(layer, layers.Dense):
            x = x @ values[0] + values[1]
        elif isinstance(layer, layers.ReLU):
            x = np.maximum(x, 0)
        elif isinstance(layer, KBatchNorm):
            mean, variance = x.mean(0), x.var(0, ddof=correction)
            statistics.append((mean, variance))
            x = values[0] * (x - mean) / np.sqrt(variance + EPSILON) + values[1]
    return statistics


def assert_statistics(model, expected):
    assert len(norms(model)) == len(expected)
    for norm, (mean, variance) in zip(norms(model), expected, strict=True):
        np.testing.assert_allclose(norm.moving_mean, mean, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(norm.moving_variance, variance, rtol=1e-4)


def generator():
    for start in range(0, 500, 64):
        yield X[start : start + 64], None


class Parts:
    """Any iterable of batches."""

    def __iter__(self):
        return iter([X[:3], X[3:400], X[400:]])


class Sequence(keras.utils.PyDataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return X[index * 64 : (index + 1) * 64], np.zeros(1)


def dataset(data):
    """Every backend takes those of TensorFlow, where that is installed."""
    tensorflow = pytest.importorskip("tensorflow")
    return tensorflow.data.Dataset.from_tensor_slices(data)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "data",
    [
        X,
        lambda: dataset(X).batch(48),
        lambda: dataset((X, X)).batch(77),
        generator,
        Sequence(),
        Parts(),
    ],
    ids=["array", "tf.data", "tf.data pairs", "generator", "PyDataset", "iterable"],
)
def test_statistics_are_those_of_all_samples(data):
    model = two_layers()
    kerasnorm.recalibrate(model, data() if callable(data) else data, verbose=0)
    assert_statistics(model, by_hand(model, X))


def test_only_so_many_steps():
    model = two_layers()
    endless = dataset(X).batch(50).repeat()
    kerasnorm.recalibrate(model, endless, steps=3, verbose=0)
    assert_statistics(model, by_hand(model, X[:150]))


def test_bessels_correction():
    model = two_layers(bessel_correction=True)
    kerasnorm.recalibrate(model, X[:20], verbose=0)
    assert_statistics(model, by_hand(model, X[:20], correction=1))


@pytest.mark.any_backend
def test_dropout_is_off_even_if_it_is_a_monte_carlo_layer():
    model = two_layers()
    dropout = next(la for la in model.layers if isinstance(la, KDropout))
    dropout.monte_carlo = True
    kerasnorm.recalibrate(model, X, verbose=0)
    assert dropout.monte_carlo
    assert_statistics(model, by_hand(model, X))


def test_nothing_but_the_statistics_changes():
    model = two_layers()
    others = [w for w in model.variables if "moving" not in w.path]
    before = [keras.ops.convert_to_numpy(w) for w in others]
    kerasnorm.recalibrate(model, X, verbose=0)
    for weight, value in zip(others, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), value)


def test_a_large_mean():
    x = (10_000 + RNG.normal(size=(1000, 3))).astype("float32")
    model = keras.Sequential([keras.Input((3,)), KBatchNorm()])
    kerasnorm.recalibrate(model, x, verbose=0)
    exact = x.astype("float64")
    np.testing.assert_allclose(norms(model)[0].moving_mean, exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(norms(model)[0].moving_variance, exact.var(0), rtol=1e-2)


@pytest.mark.any_backend
def test_masks_are_respected():
    model = keras.Sequential(
        [keras.Input((7, 3)), layers.Masking(), layers.Dense(2), KBatchNorm()]
    )
    x = RNG.normal(3, 2, (40, 7, 3)).astype("float32")
    x[RNG.random((40, 7)) < 0.4] = 0
    kerasnorm.recalibrate(model, x, verbose=0)
    valid = x[(x != 0).any(-1)].astype("float64")
    kernel, bias = model.layers[1].get_weights()
    hidden = valid @ kernel + bias
    np.testing.assert_allclose(norms(model)[0].moving_mean, hidden.mean(0), atol=1e-5)
    np.testing.assert_allclose(
        norms(model)[0].moving_variance, hidden.var(0), rtol=1e-5
    )


@pytest.mark.any_backend
def test_a_shared_layer_gets_all_its_inputs():
    one, two = keras.Input((6,)), keras.Input((6,))
    norm = KBatchNorm()
    model = keras.Model([one, two], layers.Add()([norm(one), norm(two)]))
    kerasnorm.recalibrate(model, (X, 2 - X), verbose=0)
    both = np.concatenate([X, 2 - X]).astype("float64")
    assert_statistics(model, [(both.mean(0), both.var(0))])


@pytest.mark.any_backend
def test_a_pass_ends_with_the_next_layer_that_is_not_used_before():
    """The shared layer's pass goes on to its second use, behind another layer."""
    shared, between, last = KBatchNorm(), KBatchNorm(), KBatchNorm()
    reached = []

    class Note(layers.Layer):
        def call(self, x):
            reached.append(self.name)
            return x

    inputs = keras.Input((6,))
    hidden = Note(name="early")(between(3 * shared(inputs)))
    outputs = Note(name="late")(last(shared(hidden)))
    model = keras.Model(inputs, outputs)
    reached.clear()
    kerasnorm.recalibrate(model, iter([X[:200], X[200:]]), verbose=0)
    # One batch shows the order; then there are two for each of three layers.
    assert reached.count("early") == 1 + 2 * 3
    assert reached.count("late") == 1 + 2
    variance = keras.ops.convert_to_numpy(last.moving_variance)
    after = keras.Model(inputs, model.layers[-2].input)(X, training=False)
    after = keras.ops.convert_to_numpy(after)
    np.testing.assert_allclose(after.var(0), variance, rtol=1e-4)


def test_converted_layers_in_nested_models():
    inner = keras.Sequential([keras.Input((6,)), layers.BatchNormalization()])
    model = keras.Sequential([keras.Input((6,)), inner, layers.Dropout(0.5)])
    ours = kerasnorm.convert(model)
    kerasnorm.recalibrate(ours, X, verbose=0)
    exact = X.astype("float64")
    assert_statistics(ours, [(exact.mean(0), exact.var(0))])


def test_a_subclassed_model():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.late, self.early = KBatchNorm(), KBatchNorm()

        def call(self, x):
            return self.late(3 * self.early(x))

    model = Own()
    kerasnorm.recalibrate(model, X, verbose=0)
    exact = X.astype("float64")
    np.testing.assert_allclose(model.early.moving_mean, exact.mean(0), rtol=1e-5)
    after = 9 * exact.var(0) / (exact.var(0) + EPSILON)
    np.testing.assert_allclose(model.late.moving_variance, after, rtol=1e-4)


def test_inference_then_equals_training_on_the_whole_set():
    model = keras.Sequential([keras.Input((6,)), KBatchNorm()])
    expected = keras.ops.convert_to_numpy(model(X, training=True))
    kerasnorm.recalibrate(model, X, verbose=0)
    found = keras.ops.convert_to_numpy(model(X, training=False))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.any_backend
@pytest.mark.parametrize("moving_average", ["debiased", "cumulative"])
def test_training_goes_on_as_after_one_batch_of_all_samples(moving_average):
    norm = KBatchNorm(moving_average=moving_average, momentum=0.9)
    model = keras.Sequential([keras.Input((6,)), norm])
    kerasnorm.recalibrate(model, X[:400], verbose=0)
    expected = KBatchNorm(moving_average=moving_average, momentum=0.9)
    expected(X[:400], training=True)
    for layer in (norm, expected):
        layer(X[400:], training=True)
    for ours, theirs in zip(norm.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)


@pytest.mark.any_backend
def test_renorm_refers_to_the_same_statistics():
    model = keras.Sequential([keras.Input((6,)), KBatchNorm(renorm=True)])
    kerasnorm.recalibrate(model, X, verbose=0)
    (norm,) = norms(model)
    exact = X.astype("float64")
    stddev = np.sqrt(exact.var(0) + EPSILON)
    np.testing.assert_allclose(norm.renorm_mean, exact.mean(0), rtol=1e-5)
    np.testing.assert_allclose(norm.renorm_stddev, stddev, rtol=1e-5)
    np.testing.assert_allclose(norm.moving_stddev, stddev, rtol=1e-5)


@pytest.mark.any_backend
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_run_leaves_the_model_as_it_was(error):
    model = two_layers()
    before = [keras.ops.convert_to_numpy(w) for w in model.weights]
    passes = []

    class Data:
        """It ends in the second layer's pass, when the first one is done."""

        def __iter__(self):
            passes.append(None)
            yield X[:100]
            if len(passes) == 3:
                raise error
            yield X[100:]

    with pytest.raises(error):
        kerasnorm.recalibrate(model, Data(), verbose=0)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), value)


def test_a_progress_bar(capsys):
    kerasnorm.recalibrate(two_layers(), X)
    assert "2/2" in capsys.readouterr().out
    kerasnorm.recalibrate(two_layers(), X, verbose=0)
    assert capsys.readouterr().out == ""


def test_samples_that_do_not_count_change_nothing():
    masked = keras.Sequential([keras.Input((7, 3)), layers.Masking(), KBatchNorm()])
    norms(masked)[0].moving_mean.assign([1.0, 2.0, 3.0])
    kerasnorm.recalibrate(masked, np.zeros((4, 7, 3), "float32"), verbose=0)
    np.testing.assert_array_equal(norms(masked)[0].moving_mean, [1, 2, 3])
    np.testing.assert_array_equal(norms(masked)[0].moving_variance, [1, 1, 1])
    single = keras.Sequential([keras.Input((6,)), KBatchNorm(bessel_correction=True)])
    kerasnorm.recalibrate(single, X[:1], verbose=0)
    np.testing.assert_array_equal(norms(single)[0].moving_mean, X[0])
    np.testing.assert_array_equal(norms(single)[0].moving_variance, np.ones(6))


def test_a_list_of_batches_is_not_taken_for_inputs():
    with pytest.raises(ValueError, match=r"Received: 2 arrays\. Of batches"):
        kerasnorm.recalibrate(two_layers(), [X[:100], X[100:]], verbose=0)


def test_bad_arguments():
    with pytest.raises(TypeError, match=r"Received: model=3\."):
        kerasnorm.recalibrate(3, X)
    with pytest.raises(ValueError, match=r"Received: steps=-1\."):
        kerasnorm.recalibrate(two_layers(), X, steps=-1)
    for data, received in ((5, "int"), (None, "NoneType")):
        with pytest.raises(TypeError, match=f"`data` must be .* Received: {received}"):
            kerasnorm.recalibrate(two_layers(), data)


def test_nothing_to_do():
    model = keras.Sequential([keras.Input((6,)), layers.BatchNormalization()])
    with pytest.raises(ValueError, match=r"must use a KBatchNorm.*kerasnorm\.convert"):
        kerasnorm.recalibrate(model, X, verbose=0)
    with pytest.raises(ValueError, match="at least one batch"):
        kerasnorm.recalibrate(two_layers(), iter(()), verbose=0)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ("data", TypeError, "`data` must be an array, .* Received: str"),
        (b"data", TypeError, "`data` must be an array, .* Received: bytes"),
        (["data"], TypeError, "`data` must have batches .* a batch of str"),
        ([[1.0, 2.0]], TypeError, "`data` must have batches .* a batch of float"),
        (np.float32(1), ValueError, r"`data` must be a batch .* data=\[\(\)\]"),
        (X[:0], ValueError, r"`data` must be a batch .* data=\[\(0, 6\)\]"),
        (X[:, :5], ValueError, r"`data` .* takes, \(None, 6\)\. .*data=\(500, 5\)"),
        ([(X[:9, :5], 0)], ValueError, r"`data` .* takes, \(None, 6\)\. .*\(9, 5\)"),
        ([X[:9], X[:9, :5]], ValueError, r"`data` .*Received: data=.*\(9, 5\)"),
    ],
)
def test_data_that_does_not_fit(data, error, message):
    model = two_layers()
    if isinstance(data, list) and len(data) == 2:
        data = iter(data)
    with pytest.raises(error, match=message) as caught:
        kerasnorm.recalibrate(model, data, verbose=0)
    assert "\n" not in str(caught.value)


def test_arrays_with_different_numbers_of_samples():
    one, two = keras.Input((6,)), keras.Input((6,))
    model = keras.Model([one, two], KBatchNorm()(layers.Add()([one, two])))
    message = r"`data` .*the same number of samples.*\(500, 6\), \(9, 6\)"
    with pytest.raises(ValueError, match=message):
        kerasnorm.recalibrate(model, [X, X[:9]], verbose=0)


@pytest.mark.any_backend
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_data_without_a_mean_change_nothing(value):
    model = two_layers()
    before = [np.array(norm.moving_mean.value) for norm in norms(model)]
    data = X.copy()
    data[7, 3] = value
    with pytest.raises(ValueError, match=r"mean or variance is NaN\. Look") as caught:
        kerasnorm.recalibrate(model, data, verbose=0)
    assert "\n" not in str(caught.value)
    for norm, mean in zip(norms(model), before, strict=True):
        np.testing.assert_array_equal(norm.moving_mean, mean)
