"""Masks that are drawn at the same time are all different, and all are counted."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from kerasnorm import KDropout, KGaussianDropout, KSpatialDropout
from tests.kerasnorm.probes import BACKEND, in_mode, numpy

ON_TENSORFLOW = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="tf.data and tf.function are TensorFlow's."
)
ONES = np.ones((1, 2, 64), "float32")
DRAWS = 400
THREADS = 8


def make(layer_class, **options):
    layer = layer_class(0.5, seed=1, **options)
    layer(ONES)
    return layer


def assert_all_different(layer, noise, draws=DRAWS):
    assert len({numpy(each).tobytes() for each in noise}) == len(noise) == draws
    assert numpy(layer.seed_generator.state.value).tolist() == [1, draws]


@ON_TENSORFLOW
@pytest.mark.parametrize("layer_class", [KDropout, KSpatialDropout, KGaussianDropout])
def test_in_a_dataset(layer_class):
    import tensorflow as tf

    layer = make(layer_class)
    data = tf.data.Dataset.range(DRAWS).map(
        lambda _: layer(tf.ones(ONES.shape), training=True),
        num_parallel_calls=THREADS,
        deterministic=False,
    )
    assert_all_different(layer, list(data))


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "mode", ["eager", *(pytest.param(m, marks=ON_TENSORFLOW) for m in ("graph", "xla"))]
)
def test_in_threads(mode):
    layer = make(KDropout)
    call = in_mode(lambda x: layer(x, training=True), mode)
    with ThreadPoolExecutor(THREADS) as threads:
        assert_all_different(layer, list(threads.map(call, [ONES] * DRAWS)))


@ON_TENSORFLOW
def test_in_threads_at_inference():
    layer = make(KDropout, monte_carlo=True)
    layer.seed_generator.state.assign([1, 0])
    call = in_mode(layer, "graph")
    with ThreadPoolExecutor(THREADS) as threads:
        assert_all_different(layer, list(threads.map(call, [ONES] * DRAWS)))


@ON_TENSORFLOW
def test_eagerly_and_in_two_functions_at_once():
    layer = make(KDropout)
    calls = [
        in_mode(lambda x, k=k: layer(x, training=True) * k, mode)
        for k, mode in enumerate(("eager", "graph", "graph"), start=1)
    ]

    def call(i):
        return numpy(calls[i % 3](ONES)) > 0

    with ThreadPoolExecutor(THREADS) as threads:
        assert_all_different(layer, list(threads.map(call, range(DRAWS))))


@ON_TENSORFLOW
@pytest.mark.parametrize("mode", ["graph", "xla"])
def test_a_layer_that_one_function_calls_twice(mode):
    """Of two draws of one graph neither waits for the other for ever."""
    layer, other = make(KDropout), make(KDropout)

    def call(x):
        return [layer(other(layer(x, training=True), training=True), training=True)]

    traced = in_mode(call, mode)
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(traced, [ONES] * 100))
    assert numpy(layer.seed_generator.state.value).tolist() == [1, 200]
    assert numpy(other.seed_generator.state.value).tolist() == [1, 100]
