"""Batch normalization of many samples by sums over blocks of them.

A block is summed by a matrix product, the products of two tensors as the gradient of a
depthwise convolution's filter. Up to half a million rows these kernels read their
inputs once and write nothing of their size. No sum is so long that its rounding counts.
"""

import tensorflow as tf

from kerasnorm import functional
from kerasnorm.backend.tensorflow.composed import (
    is_large,
    rows_side_by_side,
    times,
)
from kerasnorm.backend.tensorflow.typed import compile_for_features, cond
from kerasnorm.functional import Tensor

ROWS = 256
"""Rows of a block."""

SLICE = 16_384
"""Rows of a slice: the depthwise kernel may add them one after another."""

MOST_SLICES = 32
"""The kernel is called for at most this many slices. More rows are multiplied first."""

UNKNOWN_SLICES = 8
"""The number of slices where that of rows is not known."""

LARGE_MEAN = 4.0
"""In standard deviations. The rounding of a larger mean shows in the outputs."""


def normalize_blocks(
    x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float
) -> tuple[Tensor, ...]:
    """Normalize (samples, features): BN, Alg. 1.

    Returns:
        y, the two tensors whose sum is the mean, the variance, and x less the first.
    """
    share = 1 / tf.cast(tf.maximum(tf.shape(x)[0], 1), x.dtype)
    shift = functional.saturate(total(x) * share)
    rest = x - shift
    variance = _dot(rest, rest) * share
    mean = cond(
        is_large(shift, variance, epsilon, LARGE_MEAN),
        lambda: total(rest) * share,
        lambda: tf.zeros_like(shift),
    )
    # Infinity less a finite number is infinite, and not NaN.
    square = tf.minimum(tf.square(mean), mean.dtype.max)
    variance = tf.maximum(variance - square, 0)
    factor = gamma * tf.math.rsqrt(variance + epsilon)
    multiply_add = compile_for_features(_multiply_add, gamma.shape[0])
    y = multiply_add(rest, factor, beta - times(mean, factor))
    return y, shift, mean, variance, rest


def block_gradients(
    dy: Tensor,
    rest: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return dx, dgamma and dbeta, as `composed.gradients`."""
    share = 1 / tf.cast(tf.maximum(tf.shape(rest)[0], 1), rest.dtype)
    factor = tf.math.rsqrt(variance + epsilon)
    dbeta = total(dy)
    dgamma = times(_dot(dy, rest) - mean * dbeta, factor)
    slope = dgamma * factor * share
    subtract_line = compile_for_features(_subtract_line, gamma.shape[0])
    dx = subtract_line(dy, rest, slope, dbeta * share - mean * slope, gamma * factor)
    return dx, dgamma, dbeta


def total(x: Tensor) -> Tensor:
    """Sum over the first axis."""
    blocks, rest = _split(x)
    ones = tf.ones((tf.shape(blocks)[0], 1, tf.shape(blocks)[1]), x.dtype)
    return _join(tf.matmul(ones, blocks), rest)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    """Sum x * y over the first axis."""
    rows = x.shape[0]
    slices = UNKNOWN_SLICES if rows is None else -(-rows // SLICE)
    rows = tf.shape(x)[0] if rows is None else rows

    def by_slices() -> Tensor:
        (blocks_of_x, rest_of_x), (blocks_of_y, rest_of_y) = _split(x), _split(y)
        sizes = (tf.shape(blocks_of_x)[0] + tf.range(slices)) // slices
        slices_of_x, slices_of_y = (
            tf.split(blocks[:, :, None], sizes, num=slices)
            for blocks in (blocks_of_x, blocks_of_y)
        )
        sums = tf.stack(list(map(_dot_slice, slices_of_x, slices_of_y)))
        # TensorFlow's own kernel leaves the sum over no blocks as the memory was.
        sums = tf.where(tf.reshape(sizes, (-1, 1, 1, 1, 1)) > 0, sums, 0)
        return _join(sums, rest_of_x * rest_of_y)

    fit = rows <= SLICE * min(slices, MOST_SLICES)
    return cond(fit, by_slices, lambda: total(x * y))


def _dot_slice(x: Tensor, y: Tensor) -> Tensor:
    """Sum x * y over blocks and their rows, a few thousand."""
    return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
        input=x,
        filter_sizes=[1, 1, x.shape[-1], 1],
        out_backprop=y,
        strides=[1, 1, 1, 1],
        padding="VALID",
    )


def _split(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows as (blocks, rows of a block, lanes), and those left."""
    features = x.shape[-1]
    wider = rows_side_by_side(features)
    rows = tf.clip_by_value(tf.shape(x)[0] // wider, 1, ROWS)
    whole = tf.shape(x)[0] // (rows * wider) * rows * wider
    return tf.reshape(x[:whole], (-1, rows, wider * features)), x[whole:]


def _join(sums: Tensor, rest: Tensor) -> Tensor:
    """Add the sums of blocks and the rows that are left."""
    sums = tf.reshape(sums, (-1, rest.shape[-1]))
    return functional.total(tf.concat([sums, rest], 0), (0,))


def _multiply_add(x: Tensor, factor: Tensor, shift: Tensor) -> Tensor:
    return x * factor + shift


def _subtract_line(
    dy: Tensor, x: Tensor, slope: Tensor, offset: Tensor, factor: Tensor
) -> Tensor:
    return (dy - (x * slope + offset)) * factor
