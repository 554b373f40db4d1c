"""What the tests of the library do with a layer on every backend of Keras."""

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from tests.oracle import Array

BACKEND: str = keras.backend.backend()

_ARGUMENTS = inspect.signature(keras.layers.BatchNormalization).parameters
HAS_RENORM: bool = "renorm" in _ARGUMENTS
"""Whether Keras's own layer has batch renormalization: since 3.14."""

KERAS: tuple[int, ...] = tuple(map(int, keras.__version__.split(".")[:2]))
"""Keras's version, for what it has changed."""


def numpy(tensor: Any) -> NDArray[Any]:
    """Return a copy of the tensor as an array of its dtype."""
    return np.array(ops.convert_to_numpy(tensor))


def exact(tensor: Any) -> Array:
    """Return the tensor's values in float64."""
    return numpy(tensor).astype("float64")


def state(layer: keras.Layer) -> dict[str, NDArray[Any]]:
    """Return a copy of the layer's weights by name."""
    return {weight.name: numpy(weight.value) for weight in layer.weights}


def randomised(layer: Any, shape: tuple[int | None, ...], seed: int = 1) -> Any:
    """Build the layer, and give its parameters and statistics random values.

    The counts behind the moving averages stay 0.
    """
    layer.build(shape)
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        if weight.name in ("beta", "moving_mean", "renorm_mean"):
            weight.assign(rng.normal(0, 1, weight.shape))
        elif weight.name.endswith(("gamma", "_variance", "_stddev")):
            weight.assign(rng.uniform(0.5, 2, weight.shape))
    return layer


def randomised_model(model: keras.Model) -> keras.Model:
    """Give the parameters and statistics of a built model random values."""
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if weight.name in ("moving_variance", "gamma"):
            weight.assign(rng.uniform(0.5, 2, weight.shape))
        elif weight.name in ("moving_mean", "beta", "bias"):
            weight.assign(rng.normal(0, 0.2, weight.shape))
    return model


def parameters(layer: Any) -> tuple[Array, Array]:
    """Return gamma and beta: 1 and 0 where the layer has none."""
    weights = state(layer)
    ones = np.ones_like(weights["moving_mean"], "float64")
    return weights.get("gamma", ones), weights.get("beta", 0 * ones)


def gradients(layer: Any, x: Array, dy: Array, **call: Any) -> list[Array]:
    """Return the gradients of sum(dy * layer(x)) by x and the trainable weights."""
    if not layer.built:
        layer.build(x.shape)
    trainable = [weight.value for weight in layer.trainable_variables]
    if BACKEND == "tensorflow":
        found = _gradients_of_tensorflow(layer, x, dy, trainable, call)
    elif BACKEND == "jax":
        found = _gradients_of_jax(layer, x, dy, trainable, call)
    else:
        inputs = ops.convert_to_tensor(x).requires_grad_()
        (ops.convert_to_tensor(dy) * layer(inputs, **call)).sum().backward()
        found = [inputs.grad, *(value.grad for value in trainable)]
    return [numpy(gradient) for gradient in found]


def _gradients_of_tensorflow(
    layer: Any, x: Array, dy: Array, trainable: list[Any], call: dict[str, Any]
) -> list[Any]:
    import tensorflow as tf

    inputs = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = tf.reduce_sum(dy * layer(inputs, **call))
    found: list[Any] = tape.gradient(loss, [inputs, *trainable])
    return found


def _gradients_of_jax(
    layer: Any, x: Array, dy: Array, trainable: list[Any], call: dict[str, Any]
) -> list[Any]:
    import jax

    fixed = [weight.value for weight in layer.non_trainable_variables]

    def loss(x: Any, trainable: list[Any]) -> Any:
        y, _ = layer.stateless_call(trainable, fixed, x, **call)
        return ops.sum(dy * y)

    of_x, of_weights = jax.grad(loss, argnums=(0, 1))(jax.numpy.asarray(x), trainable)
    return [of_x, *of_weights]


def in_mode(function: Callable[..., Any], mode: str) -> Callable[..., Any]:
    """Return the function as TensorFlow runs it in "eager", "graph" or "xla" mode."""
    if mode == "eager":
        return function
    import tensorflow as tf

    compiled: Callable[..., Any] = tf.function(function, jit_compile=mode == "xla")
    return compiled
