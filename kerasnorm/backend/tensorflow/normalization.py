"""Batch normalization for TensorFlow."""

import math
from collections.abc import Callable

import tensorflow as tf

from kerasnorm import functional
from kerasnorm.backend.tensorflow.composed import (
    gradients,
    moments_around_mean,
    moments_around_sample,
    normalize_rest,
    sum_rows,
)
from kerasnorm.backend.tensorflow.fused import (
    fused_backward,
    fused_forward,
    is_under_xla,
)
from kerasnorm.backend.tensorflow.typed import cond, custom_gradient
from kerasnorm.functional import Moments, Tensor

SMALL = 100_000
"""Up to this many elements composed operations beat the start of the fused kernel."""

UNKNOWN_BATCH = 64
"""The size that a batch of unknown size counts with in the comparison with `SMALL`."""

Results = tuple[Tensor, Tensor, Tensor]
"""The outputs, the mean and the variance."""

Backward = Callable[..., tuple[Tensor, ...]]


def normalize_batch(
    x: Tensor,
    axes: tuple[int, ...],
    gamma: Tensor | None,
    beta: Tensor | None,
    epsilon: float,
    mask: Tensor | None = None,
) -> tuple[Tensor, Moments]:
    """Apply `functional.normalize_batch`, its backward pass collected: BN, section 3.

    TensorFlow's fused kernel takes x as (samples, features). Composed operations run
    instead for few elements, under a mask, and under XLA, whose form of the fused
    kernel has a one-pass variance.
    """
    wide = functional.widen(x)
    kept = [size for axis, size in enumerate(x.shape) if axis not in axes]
    gamma = tf.ones(kept, wide.dtype) if gamma is None else tf.cast(gamma, wide.dtype)
    beta = tf.zeros(kept, wide.dtype) if beta is None else tf.cast(beta, wide.dtype)
    count = functional.count_samples(wide, axes, mask)
    if mask is None and wide.dtype == tf.float32:
        order = (*axes, *(a for a in range(len(x.shape)) if a not in axes))
        features_last = _transpose(wide, order)
        rows = tf.reshape(features_last, (-1, gamma.shape.num_elements()))
        normalize_rows = _normalize_rows if _is_small(x) else _normalize_many_rows
        y, mean, variance = normalize_rows(
            rows, tf.reshape(gamma, [-1]), tf.reshape(beta, [-1]), epsilon, count
        )
        y = tf.reshape(y, tf.shape(features_last))
        y = _transpose(y, tuple(order.index(a) for a in range(len(order))))
    else:
        keepdims = [1 if a in axes else size for a, size in enumerate(x.shape)]
        y, mean, variance = _normalize_axes(
            wide,
            axes,
            tf.reshape(gamma, keepdims),
            tf.reshape(beta, keepdims),
            epsilon,
            tf.reshape(count, keepdims) if mask is not None else count,
            mask,
        )
    y = tf.ensure_shape(y, x.shape)
    batch = Moments(count, tf.reshape(mean, kept), tf.reshape(variance, kept))
    return tf.cast(y, x.dtype), batch


def normalize_with(
    x: Tensor,
    axes: tuple[int, ...],
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    epsilon: float,
) -> Tensor:
    """Apply `functional.normalize_with` as one multiply-add: y = factor * x + shift.

    Its error is about 1e-7 of the mean in standard deviations. For channels-last images
    it is the operation that TensorFlow's graph optimizer folds into the convolution
    before it.
    """
    wide = functional.widen(x)
    mean, variance, gamma, beta = (
        None if v is None else tf.cast(v, wide.dtype)
        for v in (mean, variance, gamma, beta)
    )
    if axes == (0, 1, 2) and len(x.shape) == 4 and wide.dtype == tf.float32:
        y, *_ = tf.raw_ops.FusedBatchNormV3(
            x=wide,
            scale=tf.ones_like(mean) if gamma is None else gamma,
            offset=tf.zeros_like(mean) if beta is None else beta,
            mean=mean,
            variance=variance,
            epsilon=epsilon,
            is_training=False,
        )
        return tf.cast(y, x.dtype)
    factor = tf.math.rsqrt(variance + epsilon)
    if gamma is not None:
        factor *= gamma
    shift = -mean * factor if beta is None else beta - mean * factor
    keepdims = [1 if a in axes else size for a, size in enumerate(x.shape)]
    y = wide * tf.reshape(factor, keepdims) + tf.reshape(shift, keepdims)
    return tf.cast(y, x.dtype)


def _normalize_rows(
    x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float, count: Tensor
) -> Results:
    """Normalize few (samples, features) by composed operations."""

    @custom_gradient
    def normalize(x: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Results, Backward]:
        rest, shift, mean, variance = moments_around_mean(x, count, sum_rows)
        y = normalize_rest(rest, mean, variance, gamma, beta, epsilon)

        def backward(dy: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
            return gradients(dy, rest, mean, variance, gamma, epsilon, count, sum_rows)

        return (y, shift + mean, variance), backward

    return normalize(x, gamma, beta)


def _normalize_many_rows(
    x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float, count: Tensor
) -> Results:
    """Normalize many (samples, features) by the fused kernel, but not under XLA."""

    @custom_gradient
    def normalize(x: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Results, Backward]:
        def composed() -> tuple[Tensor, ...]:
            rest, *moments = moments_around_sample(x, count, sum_rows)
            _, mean, variance = moments
            y = normalize_rest(rest, mean, variance, gamma, beta, epsilon)
            # What the fused kernel saves.
            return y, *moments, rest, mean, variance, tf.zeros([0])

        def fused() -> tuple[Tensor, ...]:
            return fused_forward(x, gamma, beta, epsilon, count)

        y, shift, mean, variance, *saved = cond(is_under_xla(), composed, fused)

        def backward(dy: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
            return fused_backward(dy, gamma, epsilon, saved)

        return (y, shift + mean, variance), backward

    return normalize(x, gamma, beta)


def _normalize_axes(
    x: Tensor,
    axes: tuple[int, ...],
    gamma: Tensor,
    beta: Tensor,
    epsilon: float,
    count: Tensor,
    mask: Tensor | None,
) -> Results:
    """Normalize over any axes, masked or not; all but `x` broadcast to it."""

    def total(values: Tensor) -> Tensor:
        return tf.reduce_sum(values, axes, keepdims=True)

    def total_of_valid(values: Tensor) -> Tensor:
        return total(values if mask is None else tf.where(mask, values, 0))

    @custom_gradient
    def normalize(x: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Results, Backward]:
        rest, shift, mean, variance = moments_around_mean(x, count, total_of_valid)
        y = normalize_rest(rest, mean, variance, gamma, beta, epsilon)

        def backward(dy: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
            return gradients(
                dy, rest, mean, variance, gamma, epsilon, count, total, mask
            )

        return (y, shift + mean, variance), backward

    return normalize(x, gamma, beta)


def _transpose(x: Tensor, order: tuple[int, ...]) -> Tensor:
    return x if order == tuple(range(len(order))) else tf.transpose(x, order)


def _is_small(x: Tensor) -> bool:
    batch, *sizes = x.shape
    if None in sizes:
        return False
    samples = UNKNOWN_BATCH if batch is None else batch
    return bool(samples * math.prod(sizes) <= SMALL)
