"""Exported masks, run by each format's own runtime, or refused in one line."""

import keras
import numpy as np
import pytest
from keras import layers

import kerasnorm
from kerasnorm import KBatchNorm, KDropout
from tests.kerasnorm import runtimes
from tests.kerasnorm.probes import BACKEND, numpy, randomised

pytestmark = [pytest.mark.any_backend, *runtimes.QUIET]

DRAWS = {
    "tensorflow": ("tf_saved_model", "onnx", "openvino", "litert"),
    "jax": ("tf_saved_model",),
    "torch": ("onnx", "litert"),
}[BACKEND]
REFUSED = {
    "tensorflow": (),
    "jax": ("onnx", "openvino"),
    "torch": ("tf_saved_model", "openvino"),
}[BACKEND]
FROZEN = {
    "tensorflow": ("onnx", "openvino", "litert"),
    "jax": ("onnx", "openvino"),
    "torch": ("onnx", "openvino", "litert", "torch"),  # no model to a SavedModel
}[BACKEND]
X = np.random.default_rng(0).normal(1, 2, (3, 6)).astype("float32")


def signature(model):
    """Return shapes as PyTorch needs them: with the size of a batch."""
    if BACKEND != "torch":
        return None
    inputs = keras.InputSpec("float32", X.shape)
    return [[inputs, keras.InputSpec("int32", (1,))]]


def draws_only():
    """Make a model whose averages show the masks."""
    return keras.Sequential([keras.Input((6,)), KDropout(0.4)])


def classifier():
    keras.utils.set_random_seed(0)
    noise = KBatchNorm(), KDropout(0.4)
    last = layers.Dense(3, activation="softmax")
    return keras.Sequential([keras.Input((6,)), layers.Dense(5), *noise, last])


@pytest.mark.parametrize("format", DRAWS)
@pytest.mark.parametrize(
    ("make", "samples"),
    [(draws_only, 1), pytest.param(classifier, 2, marks=pytest.mark.slow)],
)
def test_a_file_draws_what_the_model_draws(make, samples, format, tmp_path):
    runtimes.need(format, BACKEND)
    model = kerasnorm.monte_carlo_model(make(), samples)
    path = tmp_path / f"model{runtimes.SUFFIX[format]}"
    model.export(
        str(path), format=format, verbose=False, input_signature=signature(model)
    )
    found = {}
    for seed in (1, -7):
        inputs = [X, np.array([seed], "int32")]
        answers = runtimes.run(path, inputs)
        expected = model(inputs)
        for name, answer in zip(sorted(expected), answers, strict=True):
            np.testing.assert_allclose(answer, numpy(expected[name]), atol=1e-5)
        mean = answers[sorted(expected).index("mean")]
        if make is draws_only:
            np.testing.assert_array_equal(mean, numpy(expected["mean"]))
        found[seed] = mean
    assert not np.array_equal(found[1], found[-7])


PLAIN = {
    "tensorflow": ("tf_saved_model", "onnx", "openvino", "litert"),
    "jax": ("tf_saved_model",),
    "torch": ("onnx", "openvino"),
}[BACKEND]


@pytest.mark.parametrize("format", PLAIN)
def test_batch_normalization_has_one_output_and_is_right(format, tmp_path):
    runtimes.need(format, BACKEND)
    norm = randomised(KBatchNorm(), (None, 6))
    model = keras.Sequential([keras.Input((6,)), norm, KDropout(0.4)])
    expected = model(X)
    path = tmp_path / f"model{runtimes.SUFFIX[format]}"
    model.export(str(path), format=format, verbose=False)
    (answer,) = runtimes.run(path, [X])
    np.testing.assert_allclose(answer, numpy(expected), atol=1e-5)


@pytest.mark.parametrize("format", REFUSED)
def test_a_format_without_the_operations_is_refused(format, tmp_path):
    path = tmp_path / f"model{runtimes.SUFFIX[format]}"
    model = kerasnorm.monte_carlo_model(draws_only(), 2)
    with pytest.raises(ValueError, match=f"Received: format='{format}'") as caught:
        model.export(str(path), format=format)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", FROZEN)
def test_a_layer_whose_mask_would_be_frozen_is_refused(format, tmp_path):
    runtimes.need(format, BACKEND)
    layer = KDropout(0.4, monte_carlo=True, name="mine")
    model = keras.Sequential([keras.Input((6,)), layer])
    model(X)
    path = tmp_path / f"model{ {**runtimes.SUFFIX, 'torch': '.pt2'}[format] }"
    # Converters raise what they catch as an exception of their own.
    with pytest.raises(Exception, match="monte_carlo=True in 'mine'") as caught:
        model.export(str(path), format=format, verbose=False)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(BACKEND == "torch", reason="Keras on PyTorch writes no SavedModel")
def test_a_saved_model_with_such_a_layer_draws_anew_in_each_call(tmp_path):
    tf = pytest.importorskip("tensorflow")
    layer = KDropout(0.4, monte_carlo=True)
    model = keras.Sequential([keras.Input((6,)), layer])
    model.export(str(tmp_path), verbose=False)
    loaded = tf.saved_model.load(str(tmp_path))
    first, second = (np.array(loaded.serve(np.ones((9, 6), "float32"))) for _ in "ab")
    assert not np.array_equal(first, second)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="It is tf2onnx that needs it")
def test_an_opset_without_operations_of_bits_is_refused(tmp_path):
    runtimes.need("onnx", BACKEND)
    inputs, seed = keras.Input((6,)), keras.Input(batch_shape=(1,), dtype="int32")
    inside = kerasnorm.monte_carlo_model(draws_only(), 2)
    model = keras.Model([inputs, seed], inside([inputs, seed]))
    model([X, np.array([1], "int32")])
    path = tmp_path / "model.onnx"
    with pytest.raises(ValueError, match=r"Received: opset_version=None\. ") as caught:
        model.export(str(path), format="onnx", verbose=False)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(BACKEND != "torch", reason="Others take batches of any size")
def test_a_batch_of_any_size_is_refused(tmp_path):
    runtimes.need("onnx", BACKEND)
    model = kerasnorm.monte_carlo_model(draws_only(), 2)
    with pytest.raises(ValueError, match="of a known batch size") as caught:
        model.export(str(tmp_path / "model.onnx"), format="onnx", verbose=False)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
