"""Batch normalization by composed operations, forward and backward.

`total` sums values over the samples. The other arguments broadcast to `x`.
"""

import math
from collections.abc import Callable

import tensorflow as tf

from kerasnorm.functional import Tensor

Sum = Callable[[Tensor], Tensor]

LANES = 64
"""Features that fill the processor's vectors."""


def moments_around_mean(x: Tensor, count: Tensor, total: Sum) -> tuple[Tensor, ...]:
    """Return the moments of x and x less a shift: BN, Alg. 1, lines 1 and 2.

    One float32 has not enough digits for a mean that is large in standard deviations.
    So a first mean, the shift, is subtracted before the rest is summed. The mean of the
    rest is mere rounding. So its mean square less the square of its mean loses no
    digits, and costs less than a second subtraction.

    Returns:
        x - shift, the shift, the mean of the rest, and the variance.
    """
    divisor = tf.maximum(count, 1)
    largest = x.dtype.max / 4  # a sum may be infinite
    shift = tf.raw_ops.ClipByValue(
        t=total(x) / divisor, clip_value_min=-largest, clip_value_max=largest
    )
    rest = x - shift
    mean = total(rest) / divisor
    mean_square = total(tf.square(rest)) / divisor
    # Infinity less a finite number is infinite, and not NaN.
    square = tf.minimum(tf.square(mean), mean.dtype.max)
    return rest, shift, mean, tf.maximum(mean_square - square, 0)


def times(values: Tensor, factor: Tensor) -> Tensor:
    """Multiply; what is infinite or NaN is 0 where the factor is.

    A variance that is too large for the dtype makes the factor 0, and other sums of
    that size infinite.
    """
    return tf.math.multiply_no_nan(values, factor)


def normalize_rest(
    rest: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor,
    beta: Tensor,
    epsilon: float,
) -> Tensor:
    """Normalize, scale and shift in one multiply-add: BN, Alg. 1, lines 3 and 4."""
    factor = gamma * tf.math.rsqrt(variance + epsilon)
    return times(rest, factor) + (beta - times(mean, factor))


def gradients(
    dy: Tensor,
    rest: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor,
    epsilon: float,
    count: Tensor,
    total: Sum,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return dx, dgamma and dbeta: the chain rule of BN, section 3, collected.

    With factor = 1 / sqrt(variance + epsilon) and x_hat = (rest - mean) * factor,
    dx = gamma * factor * (dy - dbeta / m - x_hat * dgamma / m). A sample that the mask
    leaves out is normalized like the others, so its dy counts and `total` sums over it
    too. But neither the mean nor the variance depends on it.
    """
    factor = tf.math.rsqrt(variance + epsilon)
    dbeta = total(dy)
    dgamma = times(total(dy * rest) - mean * dbeta, factor)
    divisor = tf.maximum(count, 1)
    slope = dgamma * factor / divisor
    through_moments = times(rest, slope) + (dbeta / divisor - times(mean, slope))
    if mask is not None:
        through_moments = tf.where(mask, through_moments, 0)
    return times(dy - through_moments, gamma * factor), dgamma, dbeta


def is_large(mean: Tensor, variance: Tensor, epsilon: float, ratio: float) -> Tensor:
    """Return whether a mean is more than `ratio` standard deviations from 0."""
    return tf.reduce_any(tf.abs(mean) > ratio * tf.sqrt(variance + epsilon))


def rows_side_by_side(features: int) -> int:
    """Return of how many rows the features are taken together, to fill the lanes."""
    return 1 if features >= LANES else LANES // math.gcd(features, LANES)


def sum_rows(values: Tensor) -> Tensor:
    """Sum over the first axis; in graphs this operation starts sooner than `Sum`."""
    return tf.raw_ops.BiasAddGrad(out_backprop=values)
