"""Batch normalization by TensorFlow's fused kernel, and when not to use it."""

from collections.abc import Sequence

import tensorflow as tf

from kerasnorm.backend.tensorflow.typed import cond
from kerasnorm.functional import Tensor

LARGE_MEAN = 16.0
"""In standard deviations. The fused kernel's mean is a plain float32 sum. An output
feels its rounding in proportion to this ratio: 1e-4 at 16, 0.1 at 10,000."""


def fused_forward(
    x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float, count: Tensor
) -> tuple[Tensor, ...]:
    """Normalize (samples, features).

    Returns:
        y, the two tensors whose sum is the mean, the variance, and what
        `fused_backward` needs.
    """

    def run(x: Tensor, shift: Tensor) -> tuple[Tensor, ...]:
        y, mean, variance, *saved = tf.raw_ops.FusedBatchNormV3(
            x=x[:, None, None, :],
            scale=gamma,
            offset=beta,
            mean=[],
            variance=[],
            epsilon=epsilon,
        )
        biased = variance * ((count - 1) / tf.maximum(count, 1))
        return y[:, 0, 0, :], shift, mean, biased, x, *saved

    results = run(x, tf.zeros_like(gamma))
    _, _, mean, variance, *_ = results
    is_large = tf.reduce_any(tf.abs(mean) > LARGE_MEAN * tf.sqrt(variance + epsilon))
    return cond(is_large, lambda: run(x - mean, mean), lambda: results)


def fused_backward(
    dy: Tensor, gamma: Tensor, epsilon: float, saved: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return dx, dgamma and dbeta from what `fused_forward` saved."""
    x, saved_mean, saved_variance, saved_more = saved
    dx, dgamma, dbeta, *_ = tf.raw_ops.FusedBatchNormGradV3(
        y_backprop=dy[:, None, None, :],
        x=x[:, None, None, :],
        scale=gamma,
        reserve_space_1=saved_mean,
        reserve_space_2=saved_variance,
        reserve_space_3=saved_more,
        epsilon=epsilon,
    )
    return dx[:, 0, 0, :], dgamma, dbeta


def is_under_xla() -> bool | Tensor:
    """Return whether XLA compiles what is being traced; XLA decides it as it compiles.

    No public function tells. `DeviceIndex` gives the index of the device that runs it,
    and the length of its list of devices under XLA.
    """
    if tf.executing_eagerly():
        return False
    names = ["CPU", "GPU"]
    return tf.raw_ops.DeviceIndex(device_names=names) == len(names)
