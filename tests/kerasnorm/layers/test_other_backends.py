"""Training, saving and going on where test_contract.py, TensorFlow's, does not run.

In float32: JAX has nothing wider unless told.
"""

import keras
import numpy as np
import pytest
from keras import layers

from kerasnorm import KBatchNorm, KDropout, KGaussianDropout, KSpatialDropout
from tests.kerasnorm.inputs import uneven
from tests.kerasnorm.probes import BACKEND, numpy

pytestmark = [
    pytest.mark.any_backend,
    pytest.mark.skipif(BACKEND == "tensorflow", reason="test_contract.py sees it."),
]

# torch.compile needs a C++ compiler; JAX's way without compiling takes half a minute.
JIT_COMPILE = BACKEND == "jax"
CLOSE = {"rtol": 2e-5, "atol": 2e-5}


def network():
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, name="conv"),
            KBatchNorm(momentum=0.8, moving_average="debiased", name="norm"),
            layers.ReLU(),
            KSpatialDropout(0.1, seed=1),
            layers.Flatten(),
            KGaussianDropout(0.1, seed=2),
            layers.Dense(8, activation="relu"),
            KBatchNorm(momentum=0.8, renorm=True),
            KDropout(keras.optimizers.schedules.PolynomialDecay(0.3, 20, 0.1), seed=3),
            layers.Dense(1),
        ]
    )


X = uneven((40, 6, 6, 2), location=-3.0, dtype="float32")
Y = X.mean(axis=(1, 2)) @ np.array([[1.0], [-0.5]], "float32")


def test_training_saving_and_going_on(tmp_path):
    model = network()
    model.compile(keras.optimizers.Adam(0.02), "mse", jit_compile=JIT_COMPILE)
    fit = {"batch_size": 16, "shuffle": False, "verbose": 0}
    losses = model.fit(X, Y, epochs=8, **fit).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    predicted = model.predict(X, verbose=0)
    np.testing.assert_allclose(predicted, numpy(model(X, training=False)), **CLOSE)

    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    whole = keras.saving.load_model(tmp_path / "model.keras")
    weights = network()
    weights.load_weights(tmp_path / "model.weights.h5")
    for loaded in (whole, weights):
        np.testing.assert_allclose(loaded.predict(X, verbose=0), predicted, **CLOSE)
        seeds = [la.seed_generator.state for la in loaded.layers if hasattr(la, "rate")]
        assert [numpy(s.value).tolist() for s in seeds] == [[1, 24], [2, 24], [3, 24]]
    model.fit(X, Y, epochs=2, **fit)
    whole.fit(X, Y, epochs=2, **fit)
    for ours, theirs in zip(whole.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
