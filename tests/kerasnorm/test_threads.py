"""What one thread does with a model, another one that uses it sees nothing of.

One thread stops in the middle of the model, another one uses it from start to end.
"""

import threading

import keras
import numpy as np
import pytest
from keras import layers

import kerasnorm
from kerasnorm import KBatchNorm, KDropout
from tests.kerasnorm.inputs import uneven
from tests.kerasnorm.probes import BACKEND, in_mode, numpy

pytestmark = pytest.mark.any_backend

X = uneven((12, 4), location=-3.0, dtype="float32")
OTHER_X = uneven((8, 4), seed=1, location=5.0, dtype="float32")


class Meanwhile(layers.Layer):
    """The identity, in the middle of whose call another thread does something once."""

    action = None
    result = None

    def call(self, x):
        action, self.action = self.action, None
        if action is not None:
            self.result = in_another_thread(action)
        return x


def in_another_thread(action):
    results = []
    thread = threading.Thread(target=lambda: results.append(action()))
    thread.start()
    thread.join()
    assert results, "The other thread has failed."
    return results[0]


def make():
    """Make a model that stops in its middle: the same one each time."""
    keras.utils.set_random_seed(3)
    meanwhile = Meanwhile()
    stack = [
        keras.Input((4,)),
        KBatchNorm(momentum=0.5, name="first"),
        KDropout(0.5, seed=1),
        meanwhile,
        layers.Dense(3, activation="softmax"),
        KBatchNorm(momentum=0.5, name="last"),
        KDropout(0.5, seed=2),
    ]
    model = keras.Sequential(stack)
    model.get_layer("first").moving_mean.assign([1.0, -2.0, 3.0, 0.5])
    return model, meanwhile


def variables(model):
    return [numpy(v.value) for v in model.variables]


def infer(model):
    return numpy(model(OTHER_X, training=False))


def infer_traced(model):
    """A new function each time, so that this thread traces it."""
    if BACKEND == "jax":
        import jax

        values = [v.value for v in model.non_trainable_variables]
        trained = [v.value for v in model.trainable_variables]
        call = jax.jit(lambda x: model.stateless_call(trained, values, x)[0])
        return numpy(call(OTHER_X))
    mode = "graph" if BACKEND == "tensorflow" else "eager"
    return numpy(in_mode(lambda x: model(x, training=False), mode)(OTHER_X))


def train(model):
    return numpy(model(OTHER_X, training=True))


def monte_carlo(model, x=OTHER_X):
    prediction = kerasnorm.monte_carlo(model, x, samples=3, seed=7)
    return np.stack([prediction.mean, prediction.variance])


def recalibrate(model, x=OTHER_X):
    kerasnorm.recalibrate(model, x, verbose=0)
    return np.concatenate([numpy(w.value).ravel() for w in model.weights])


def observe(model, x=OTHER_X):
    monitor = kerasnorm.ShiftMonitor(x, tolerance=1e9)
    monitor.set_model(model)
    monitor.on_train_begin()
    monitor.on_epoch_end(0)
    rows = monitor.history
    return np.array([[v for v in row.values() if v != row["layer"]] for row in rows])


def pairs(uses, fast):
    """Return all pairs of what is interrupted and of what the other thread does."""
    return pytest.mark.parametrize(
        ("outer", "use"),
        [
            pytest.param(
                outer,
                use,
                marks=[] if (outer, use) in fast else pytest.mark.slow,
                id=f"{outer.__name__}-{use.__name__}",
            )
            for outer in (monte_carlo, recalibrate, observe)
            for use in uses
        ],
    )


@pairs(
    [infer, infer_traced, train, monte_carlo, recalibrate, observe],
    fast=[
        (monte_carlo, infer),
        (recalibrate, infer_traced),
        (recalibrate, train),
        (recalibrate, observe),
        (observe, recalibrate),
        (observe, train),
    ],
)
def test_another_thread_uses_the_model_meanwhile(outer, use):
    """It gets what it gets where nothing else runs, and leaves the same behind."""
    alone, _ = make()
    expected = use(alone)
    model, meanwhile = make()
    meanwhile.action = lambda: use(model)
    outer(model, X)
    np.testing.assert_array_equal(meanwhile.result, expected)
    if outer is not recalibrate:
        for ours, theirs in zip(variables(model), variables(alone), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pairs(
    [infer, infer_traced, monte_carlo, observe],
    fast=[(recalibrate, infer), (observe, infer_traced)],
)
def test_what_is_interrupted_sees_nothing_either(outer, use):
    alone, _ = make()
    expected = outer(alone, X)
    model, meanwhile = make()
    meanwhile.action = lambda: use(model)
    np.testing.assert_array_equal(outer(model, X), expected)


def test_recalibrate_shows_no_layer_before_all_are_done():
    """Between the passes, too: another thread sees the old statistics or the new."""
    model, _ = make()
    before, seen = infer(model), []

    class Data:
        def __iter__(self):
            seen.append(in_another_thread(lambda: infer(model)))
            return iter([X])

    kerasnorm.recalibrate(model, Data(), verbose=0)
    assert len(seen) == 3  # for the order of use, and for each layer
    for y in seen:
        np.testing.assert_array_equal(y, before)
    assert not np.array_equal(infer(model), before)


def test_what_makes_the_data_is_not_taken_in():
    """Nor does it run with dropout off, or lose what it changes."""
    expected, _ = make()
    kerasnorm.recalibrate(expected, X, verbose=0)
    model, _ = make()
    draws = []

    class Data:
        def __iter__(self):
            draws.append(numpy(model(OTHER_X, training=True)))
            return iter([X])

    statistics = [w for w in model.weights if "moving" in w.path]
    kerasnorm.recalibrate(model, Data(), verbose=0)
    for ours, theirs in zip(model.weights, expected.weights, strict=True):
        np.testing.assert_allclose(numpy(ours.value), numpy(theirs.value), rtol=1e-6)
    assert statistics
    assert not np.array_equal(draws[0], draws[1])  # the random state went on
