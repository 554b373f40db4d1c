"""Batch normalization for TensorFlow."""

import math
from collections.abc import Callable

import tensorflow as tf

from kerasnorm import functional
from kerasnorm._keras import export_in_progress
from kerasnorm.backend.tensorflow.composed import (
    gradients,
    moments_around_mean,
    normalize_rest,
    sum_rows,
)
from kerasnorm.backend.tensorflow.many import normalize_many
from kerasnorm.backend.tensorflow.typed import custom_gradient
from kerasnorm.functional import Moments, Tensor

SMALL = 100_000
"""Up to this many elements composed operations are the fastest."""

FEW = 4096
"""Up to this many rows they may add one after another."""

UNKNOWN_BATCH = 64
"""A batch of unknown size is not expected to be smaller."""

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

    x is seen as (samples, features). Few samples are normalized by composed operations;
    many by the fused kernel where it is fast and exact, else by sums over blocks or,
    under XLA, chunks. Under a mask and in float64 there are composed operations for any
    axes. No gradient flows through the moments.
    """
    x = tf.convert_to_tensor(x)
    dtype = functional.widened(x.dtype)
    kept = [size for axis, size in enumerate(x.shape) if axis not in axes]
    gamma = tf.ones(kept, dtype) if gamma is None else tf.cast(gamma, dtype)
    beta = tf.zeros(kept, dtype) if beta is None else tf.cast(beta, dtype)
    count = functional.count_samples(x, axes, mask)
    if mask is None and dtype == "float32":
        order = (*axes, *(a for a in range(len(x.shape)) if a not in axes))
        features_last = _transpose(functional.widen(x), order)
        features = gamma.shape.num_elements()
        arguments = (
            tf.reshape(features_last, (-1, features)),
            tf.reshape(gamma, [-1]),
            tf.reshape(beta, [-1]),
            epsilon,
            count,
        )
        are_few = _are_few(x, features)
        if are_few is True:
            y, mean, variance = _normalize_few(*arguments)
        else:
            y, mean, variance = normalize_many(*arguments, are_few)
        y = tf.reshape(y, tf.shape(features_last))
        y = _transpose(y, tuple(order.index(a) for a in range(len(order))))
    else:
        keepdims = [1 if a in axes else size for a, size in enumerate(x.shape)]
        y, mean, variance = _normalize_axes(
            functional.widen(x),
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
    mean, variance = (tf.cast(v, wide.dtype) for v in (mean, variance))
    gamma = tf.ones_like(mean) if gamma is None else tf.cast(gamma, wide.dtype)
    beta = tf.zeros_like(mean) if beta is None else tf.cast(beta, wide.dtype)
    is_image = axes == (0, 1, 2) and len(x.shape) == 4 and wide.dtype == tf.float32
    keepdims = [1 if a in axes else size for a, size in enumerate(x.shape)]
    # LiteRT takes vectors into the layer behind, but not what is reshaped to (1, n).
    is_last = axes == tuple(range(len(axes)))

    def align(values: Tensor) -> Tensor:
        return values if is_last else tf.reshape(values, keepdims)

    def forward(
        x: Tensor, mean: Tensor, variance: Tensor, gamma: Tensor, beta: Tensor
    ) -> Tensor:
        if is_image:
            y, *_ = tf.raw_ops.FusedBatchNormV3(
                x=x,
                scale=gamma,
                offset=beta,
                mean=mean,
                variance=variance,
                epsilon=epsilon,
                is_training=False,
            )
            return y
        factor = gamma * tf.math.rsqrt(variance + epsilon)
        return x * align(factor) + align(beta - mean * factor)

    @custom_gradient
    def normalize(x: Tensor, *parameters: Tensor) -> tuple[Tensor, Backward]:
        mean, variance, gamma, beta = parameters
        y = forward(x, mean, variance, gamma, beta)

        def backward(dy: Tensor) -> tuple[Tensor, ...]:
            inverse = tf.math.rsqrt(variance + epsilon)
            dbeta = functional.total(dy, axes)
            dgamma = functional.total(dy * (x - align(mean)), axes) * inverse
            dmean = -gamma * inverse * dbeta
            dvariance = -0.5 * gamma * tf.square(inverse) * dgamma
            return dy * align(gamma * inverse), dmean, dvariance, dgamma, dbeta

        return y, backward

    # Of a function with a gradient of its own OpenVINO makes one more output.
    function = forward if _is_exported_to_openvino() else normalize
    return tf.cast(function(wide, mean, variance, gamma, beta), x.dtype)


def _is_exported_to_openvino() -> bool:
    if tf.executing_eagerly():
        return False
    export = export_in_progress()
    return export is not None and export[0] == "openvino"


def _normalize_few(
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
        return tf.reshape(functional.total(values, axes), gamma.shape)

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


def _are_few(x: Tensor, features: int) -> bool | Tensor:
    """Return whether x has few samples; a tensor, if that is seen when it runs."""
    most = features * min(FEW, SMALL // max(features, 1))
    size = _expected_size(x)
    if x.shape.is_fully_defined() or size > most:
        return size <= most
    return tf.size(x) <= most


def _expected_size(x: Tensor) -> int:
    return math.prod(UNKNOWN_BATCH if size is None else size for size in x.shape)
