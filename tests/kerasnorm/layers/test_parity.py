"""`KBatchNorm` beside the built-in layer with the same weights, step by step.

It cuts across the layer's parts: where both must agree, the built-in layer is a second
reference beside the oracle.
"""

import keras
import numpy as np
import pytest
from keras import ops

from kerasnorm import KBatchNorm
from tests.kerasnorm.inputs import uneven
from tests.kerasnorm.probes import BACKEND, HAS_RENORM, KERAS, randomised

if BACKEND != "tensorflow":
    pytest.skip("It compares in TensorFlow's modes.", allow_module_level=True)

import tensorflow as tf

OPTIONS = {
    "defaults": {},
    "axis": {"axis": 1},
    "momentum": {"momentum": 0.6, "epsilon": 0.1},
    "no scale": {"scale": False},
    "no centre": {"center": False},
    "initializers": {
        "beta_initializer": "ones",
        "gamma_initializer": keras.initializers.Constant(0.7),
        "moving_mean_initializer": keras.initializers.Constant(-1.0),
        "moving_variance_initializer": keras.initializers.Constant(3.0),
        **({"renorm": True} if HAS_RENORM else {}),
    },
    "regularizers and constraints": {
        "beta_regularizer": "l2",
        "gamma_regularizer": keras.regularizers.L1(0.3),
        "beta_constraint": keras.constraints.MaxNorm(0.01),
        "gamma_constraint": "non_neg",
    },
}
if HAS_RENORM:
    OPTIONS |= {
        "renorm": {"renorm": True, "renorm_momentum": 0.8},
        "renorm without gamma and beta": {
            "renorm": True,
            "scale": False,
            "center": False,
        },
        "renorm clipped": {
            "renorm": True,
            "renorm_clipping": {"rmax": 1.2, "rmin": 0.9, "dmax": 0.3},
            "renorm_momentum": 0.8,
        },
    }


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_training_steps(options):
    """The same model, data and optimiser: losses, weights and outputs, step by step."""
    if "gamma_regularizer" in options and KERAS < (3, 14):
        pytest.skip("Keras's regularizers computed in float32 alone.")

    def model(layer_class):
        return keras.Sequential(
            [
                keras.Input((4, 3)),
                layer_class(dtype="float64", **options),
                keras.layers.Flatten(dtype="float64"),
                keras.layers.Dense(2, kernel_initializer="ones", dtype="float64"),
            ]
        )

    def step(model, optimizer, x, target):
        with tf.GradientTape() as tape:
            loss = ops.mean(ops.square(model(x, training=True) - target))
            loss = loss + sum(model.losses)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    ours, builtin = model(KBatchNorm), model(keras.layers.BatchNormalization)
    optimizers = [keras.optimizers.SGD(0.05, momentum=0.5) for _ in range(2)]
    assert [w.name for w in ours.weights] == [w.name for w in builtin.weights]
    for seed in range(5):
        x = uneven((6 + seed, 4, 3), seed=seed)
        target = np.random.default_rng(seed).normal(0, 1, (6 + seed, 2))
        loss, expected = (
            step(model, optimizer, x, target)
            for model, optimizer in zip((ours, builtin), optimizers, strict=True)
        )
        np.testing.assert_allclose(loss, expected, rtol=1e-9)
        for one, other in zip(ours.weights, builtin.weights, strict=True):
            np.testing.assert_allclose(
                one, other, rtol=1e-9, atol=1e-12, err_msg=one.path
            )
    x = uneven((9, 4, 3), seed=77)
    np.testing.assert_allclose(ours(x), builtin(x), rtol=1e-9, atol=1e-12)


def test_masks():
    """The built-in layer divides by the count + 1e-7, hence the tolerance."""
    ours = randomised(KBatchNorm(dtype="float64"), (4, 5, 3))
    builtin = keras.layers.BatchNormalization(dtype="float64")
    randomised(builtin, (4, 5, 3))
    for step in range(5):
        x = uneven((4, 5, 3), seed=step)
        mask = np.random.default_rng(step).random((4, 5)) < 0.6
        np.testing.assert_allclose(
            ours(x, training=True, mask=mask),
            builtin(x, training=True, mask=mask),
            rtol=1e-6,
            atol=1e-6,
        )
    for one, other in zip(ours.weights, builtin.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, err_msg=one.path)


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_masks_of_other_dtypes_than_bool(dtype):
    mask = np.random.default_rng(0).random((4, 5)) < 0.6
    x = uneven((4, 5, 3))
    builtin = keras.layers.BatchNormalization(dtype="float64")
    randomised(builtin, x.shape)
    y = builtin(x, training=True, mask=mask.astype(dtype))
    ours, of_bool = (randomised(KBatchNorm(dtype="float64"), x.shape) for _ in range(2))
    ours_y = ours(x, training=True, mask=mask.astype(dtype))
    np.testing.assert_allclose(ours_y, y, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(ours_y, of_bool(x, training=True, mask=mask))
    for one, other in zip(ours.weights, of_bool.weights, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=one.path)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_dtypes(policy):
    ours = randomised(KBatchNorm(dtype=policy), (32, 3))
    builtin = keras.layers.BatchNormalization(dtype=policy)
    randomised(builtin, (32, 3))
    eps = {"float32": 1e-5, "mixed_float16": 2.0**-10}.get(policy, 2.0**-7)
    for step in range(3):
        x = uneven((32, 3), seed=step)
        np.testing.assert_allclose(
            ops.cast(ours(x, training=True), "float64"),
            ops.cast(builtin(x, training=True), "float64"),
            rtol=eps,
            atol=1e-5,
        )
    for one, other in zip(ours.weights, builtin.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, err_msg=one.path)
