"""Batch normalization of many samples under XLA, by chunks of them.

One loop over x writes what the sums need of each chunk of rows, and the chunks are
merged by Chan's formula. So x is read once for both moments, nothing of its size is
written in between, and no sum is so long that its rounding counts.
"""

import tensorflow as tf

from kerasnorm import functional
from kerasnorm.backend.tensorflow.composed import rows_side_by_side, times
from kerasnorm.functional import Tensor

CHUNK = 16
"""Rows of a chunk. What is written of each is as much as one of its rows."""


def normalize_chunks(
    x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float
) -> tuple[Tensor, ...]:
    """Normalize (samples, features): BN, Alg. 1.

    Returns:
        y, the two tensors whose sum is the mean, and the variance.
    """
    share = 1 / tf.cast(tf.maximum(tf.shape(x)[0], 1), gamma.dtype)
    # At a large mean the mean of a chunk would lose digits, but not its difference to
    # a sample.
    sample = tf.reduce_sum(x[:1], 0)
    chunks, rest = (
        functional.saturate(rows - _tile(sample, rows)) for rows in _split(x)
    )
    chunks = tf.unstack(chunks, axis=1)
    means = _add([chunk / CHUNK for chunk in chunks])
    squares = _add([tf.square(chunk - means) for chunk in chunks])
    # A row that is left is a chunk of one row.
    weights = _join(tf.ones_like(means) * (CHUNK * share), tf.ones_like(rest) * share)
    means, squares = _join(means, rest), _join(squares, tf.zeros_like(rest))

    def mean(values: Tensor) -> Tensor:
        # No partial sum of shares is larger than the largest term.
        return functional.total(values * weights, (0,))

    distance = mean(means)
    correction = mean(means - distance)
    spread = weights * tf.square(means - distance - correction)
    variance = functional.total(squares * share + spread, (0,))
    shift = functional.saturate(sample + distance)
    correction = sample - shift + distance + correction
    factor = gamma * tf.math.rsqrt(variance + epsilon)
    y = times(x - shift - correction, factor) + beta
    return y, shift, correction, variance


def chunk_gradients(
    dy: Tensor,
    x: Tensor,
    shift: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return dx, dgamma and dbeta, as `composed.gradients`."""
    share = 1 / tf.cast(tf.maximum(tf.shape(x)[0], 1), gamma.dtype)
    factor = tf.math.rsqrt(variance + epsilon)

    def deviation(x: Tensor) -> Tensor:
        return x - _tile(shift, x) - _tile(mean, x)

    def total(chunks: Tensor, rest: Tensor) -> Tensor:
        sums = _add(tf.unstack(chunks, axis=1))
        return functional.total(_join(sums, rest), (0,))

    pairs = list(zip(_split(dy), _split(x), strict=True))
    dbeta = total(*(dy for dy, _ in pairs))
    dgamma = times(total(*(dy * deviation(x) for dy, x in pairs)), factor)
    through_moments = dbeta * share + times(deviation(x), factor * dgamma * share)
    dx = times(dy - through_moments, gamma * factor)
    return dx, dgamma, dbeta


def _split(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows as (chunks, rows of a chunk, features), and those left.

    Few features are taken together with those of the next rows.
    """
    features = x.shape[-1]
    wider = rows_side_by_side(features)
    whole = tf.shape(x)[0] // (CHUNK * wider)
    rows = whole * CHUNK * wider
    return tf.reshape(x[:rows], (whole, CHUNK, wider * features)), x[rows:]


def _tile(features: Tensor, rows: Tensor) -> Tensor:
    """Repeat the features as often as `rows` has them."""
    return tf.tile(features, [rows.shape[-1] // features.shape[0]])


def _add(values: list[Tensor]) -> Tensor:
    """Add pairs, then pairs of those."""
    while len(values) > 1:
        values = [a + b for a, b in zip(values[::2], values[1::2], strict=True)]
    return values[0]


def _join(of_chunks: Tensor, of_rest: Tensor) -> Tensor:
    """Return (chunks and rows that are left, features)."""
    return tf.concat([tf.reshape(of_chunks, (-1, of_rest.shape[-1])), of_rest], 0)
