"""Batch normalization of many samples by chunks of them, compiled by XLA.

One loop over x writes what the sums need of each chunk of rows, and the chunks are
merged by Chan's formula. So x is read once for both moments, nothing of its size is
written in between, and no sum is so long that its rounding counts.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from kerasnorm import functional
from kerasnorm.backend.tensorflow.composed import times
from kerasnorm.functional import Tensor

CHUNK = 16
"""Rows of a chunk. What is written of each is as much as one of its rows."""

LANES = 64
"""So many features fill the processor's vectors. Fewer are taken from several rows."""


def normalize_chunks(
    x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalize (samples, features).

    Returns:
        y in the dtype of x, the two tensors whose sum is the mean, and the variance.
    """
    arguments = x, gamma, beta, tf.constant(epsilon, gamma.dtype)
    outputs: tuple[Tensor, ...] = _compile(_normalize, gamma.shape[0])(*arguments)
    return outputs


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
    arguments = dy, x, shift, mean, variance, gamma
    epsilon = tf.constant(epsilon, gamma.dtype)
    outputs: tuple[Tensor, ...] = _compile(_gradients, gamma.shape[0])(
        *arguments, epsilon
    )
    return outputs


@functools.cache
def _compile(function: Callable[..., Any], features: int) -> Callable[..., Any]:
    """Compile `function` for tensors with so many features and any number of rows."""
    compiled: Callable[..., Any] = tf.function(
        function, jit_compile=True, autograph=False, reduce_retracing=True
    )
    return compiled


def _normalize(
    x: Tensor, gamma: Tensor, beta: Tensor, epsilon: Tensor
) -> tuple[Tensor, ...]:
    """Apply BN, Alg. 1, to x."""
    wide = functional.widen(x)
    share = 1 / tf.cast(tf.maximum(tf.shape(x)[0], 1), gamma.dtype)
    chunks, rest = _split(wide)
    means = _add([chunk / CHUNK for chunk in chunks])
    squares = _add([tf.square(chunk - means) for chunk in chunks])
    # A row that is left is a chunk of one row.
    weights = _join(tf.ones_like(means) * (CHUNK * share), tf.ones_like(rest) * share)
    means, squares = _join(means, rest), _join(squares, tf.zeros_like(rest))

    def mean(values: Tensor) -> Tensor:
        # No partial sum of shares is larger than the largest term.
        return functional.total(values * weights, (0,))

    shift = mean(means)
    correction = mean(means - shift)
    correction = tf.where(tf.math.is_finite(correction), correction, 0)
    spread = weights * tf.square(means - shift - correction)
    variance = functional.total(squares * share + spread, (0,))
    factor = gamma * tf.math.rsqrt(variance + epsilon)
    y = times(wide - shift - correction, factor) + beta
    return tf.cast(y, x.dtype), shift, correction, variance


def _gradients(
    dy: Tensor,
    x: Tensor,
    shift: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor,
    epsilon: Tensor,
) -> tuple[Tensor, ...]:
    """Apply the chain rule of BN, section 3, collected."""
    dtype = x.dtype
    dy, x = functional.widen(dy), functional.widen(x)
    share = 1 / tf.cast(tf.maximum(tf.shape(x)[0], 1), gamma.dtype)
    factor = tf.math.rsqrt(variance + epsilon)
    dy_chunks, dy_rest = _split(dy)
    x_chunks, x_rest = _split(x)

    def deviation(x: Tensor) -> Tensor:
        times_wider = x.shape[-1] // gamma.shape[0]
        return x - tf.tile(shift, [times_wider]) - tf.tile(mean, [times_wider])

    products = [dy * deviation(x) for dy, x in zip(dy_chunks, x_chunks, strict=True)]
    dbeta = functional.total(_join(_add(dy_chunks), dy_rest), (0,))
    dgamma = functional.total(_join(_add(products), dy_rest * deviation(x_rest)), (0,))
    dgamma = times(dgamma, factor)
    through_moments = dbeta * share + times(deviation(x), factor * dgamma * share)
    dx = times(dy - through_moments, gamma * factor)
    return tf.cast(dx, dtype), dgamma, dbeta


def _split(x: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return the first rows of all chunks, their second rows, ..., and what is left.

    Few features are taken together with those of the next rows.
    """
    features = x.shape[-1]
    wider = 1 if features >= LANES else LANES // math.gcd(features, LANES)
    whole = tf.shape(x)[0] // (CHUNK * wider)
    rows = whole * CHUNK * wider
    chunks = tf.reshape(x[:rows], (whole, CHUNK, wider * features))
    return tf.unstack(chunks, axis=1), x[rows:]


def _add(values: list[Tensor]) -> Tensor:
    """Add pairs, then pairs of those."""
    while len(values) > 1:
        values = [a + b for a, b in zip(values[::2], values[1::2], strict=True)]
    return values[0]


def _join(of_chunks: Tensor, of_rest: Tensor) -> Tensor:
    """Return (chunks and rows that are left, features)."""
    return tf.concat([tf.reshape(of_chunks, (-1, of_rest.shape[-1])), of_rest], 0)
