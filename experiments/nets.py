"""The fully connected networks of both papers.

All take images in [0, 1] of shape (28, 28, 1). With the same seed, networks that differ
only in normalization or dropout have the same initial weights.
"""

from collections.abc import Callable
from typing import Any

import keras

import kerasnorm


def seed_of(seed: int, layer: int) -> int:
    """Return a seed for one layer of a network."""
    return 1000 * seed + layer


def mlp(
    seed: int,
    *,
    widths: tuple[int, ...],
    activation: str = "relu",
    stddev: float | None = None,
    norm: bool = False,
    input_rate: float = 0.0,
    rate: float = 0.0,
    dropout: Callable[..., keras.layers.Layer] = kerasnorm.KDropout,
    l2: float = 0.0,
    max_norm: float | None = None,
) -> keras.Model:
    """Make a multilayer perceptron with ten logits.

    Args:
        seed: Of the initial weights and of dropout's masks.
        widths: Units of the hidden layers.
        activation: Of the hidden layers, which are called hidden_1, hidden_2, ...
        stddev: Of the normally distributed initial weights. Defaults to He's.
        norm: Whether to normalize before each nonlinearity.
        input_rate: The fraction of the pixels dropped.
        rate: The fraction of the hidden units dropped.
        dropout: `KDropout` or `KGaussianDropout`.
        l2: The factor of the squared weights in the loss.
        max_norm: The bound of the norm of each hidden unit's incoming weights.
    """

    def dense(units: int, layer: int, **options: Any) -> keras.layers.Layer:
        initializer = keras.initializers.HeNormal(seed_of(seed, layer))
        if stddev is not None:
            initializer = keras.initializers.RandomNormal(
                stddev=stddev, seed=seed_of(seed, layer)
            )
        regularizer = keras.regularizers.L2(l2) if l2 else None
        return keras.layers.Dense(
            units,
            kernel_initializer=initializer,
            kernel_regularizer=regularizer,
            **options,
        )

    constraint = keras.constraints.MaxNorm(max_norm) if max_norm else None
    images = keras.Input((28, 28, 1))
    x = keras.layers.Flatten()(images)
    if input_rate:
        x = dropout(input_rate, seed=seed_of(seed, 100))(x)
    for layer, units in enumerate(widths, start=1):
        x = dense(units, layer, use_bias=not norm, kernel_constraint=constraint)(x)
        if norm:
            x = batch_norm()(x)
        x = keras.layers.Activation(activation, name=f"hidden_{layer}")(x)
        if rate:
            x = dropout(rate, seed=seed_of(seed, 100 + layer))(x)
    return keras.Model(images, dense(10, len(widths) + 1)(x))


def batch_norm(**options: Any) -> keras.layers.Layer:
    """Make a batch normalization with moving statistics that are right at once."""
    return kerasnorm.KBatchNorm(moving_average="debiased", **options)
