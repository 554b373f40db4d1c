"""Batch normalization by TensorFlow's fused kernel, and when to use it."""

import functools

import tensorflow as tf

from kerasnorm.backend.tensorflow.composed import is_large
from kerasnorm.functional import Tensor

MOST_ROWS = 8192
"""The fused kernel adds one row after another. With more rows its errors pass 1e-5."""

LARGE_MEAN = 2.0
"""In standard deviations. The fused kernel's mean is a plain float32 sum. An output
feels its rounding in proportion to this ratio."""


@functools.cache
def is_fast() -> bool:
    """Return whether the fused kernel is oneDNN's: TensorFlow's own one is slow.

    TensorFlow counts a processor's memory only where it runs with oneDNN. What a GPU's
    kernel saves is something else, and nothing was measured there.
    """
    if tf.config.list_logical_devices("GPU"):
        return False
    try:
        tf.config.experimental.get_memory_info("CPU:0")
    except ValueError:
        return False
    return True


def normalize_fused(
    x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize (samples, features).

    Returns:
        y, the mean and the variance.
    """
    y, mean, unbiased, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x[:, None, None, :],
        scale=gamma,
        offset=beta,
        mean=[],
        variance=[],
        epsilon=epsilon,
    )
    count = tf.cast(tf.shape(x)[0], x.dtype)
    return y[:, 0, 0, :], mean, unbiased * ((count - 1) / tf.maximum(count, 1))


def is_exact(mean: Tensor, variance: Tensor, epsilon: float) -> Tensor:
    """Return whether the moments of at most `MOST_ROWS` rows are good to 1e-5."""
    is_finite = tf.reduce_all(tf.math.is_finite(variance))
    return is_finite & ~is_large(mean, variance, epsilon, LARGE_MEAN)


def fused_gradients(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return dx, dgamma and dbeta, as `composed.gradients`."""
    dx, dgamma, dbeta, *_ = tf.raw_ops.FusedBatchNormGradV3(
        y_backprop=dy[:, None, None, :],
        x=x[:, None, None, :],
        scale=gamma,
        reserve_space_1=mean,
        reserve_space_2=variance,
        reserve_space_3=tf.zeros([0]),
        epsilon=epsilon,
    )
    return dx[:, 0, 0, :], dgamma, dbeta
