"""The functions of `kerasnorm.backend` for JAX.

XLA adds in windows of a few terms, so that its sums are as good as those over blocks of
`functional.total`, and faster.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from keras import ops

from kerasnorm import functional
from kerasnorm.backend.generic import (
    gaussian_dropout,
    is_second_pass,
    next_seed,
    normalize_with,
    on_known_rank,
    pool_replicas,
    replica_seed,
)
from kerasnorm.functional import Moments, Shape, Tensor

__all__ = [
    "dropout",
    "gaussian_dropout",
    "is_second_pass",
    "next_seed",
    "normalize_batch",
    "normalize_with",
    "on_known_rank",
    "pool_replicas",
    "remat",
    "replica_seed",
    "thinning",
]

LARGE_MEAN = 4.0
"""In standard deviations. The rounding of a larger mean shows in the outputs."""

ROW = 8
"""Elements of a row in which noise is drawn: XLA's loops over short rows are faster."""


def normalize_batch(
    x: Tensor,
    axes: tuple[int, ...],
    gamma: Tensor | None,
    beta: Tensor | None,
    epsilon: float,
    mask: Tensor | None = None,
) -> tuple[Tensor, Moments]:
    """Apply `functional.normalize_batch`, its derivative collected: BN, section 3."""
    if mask is not None:
        return functional.normalize_batch(x, axes, gamma, beta, epsilon, mask)
    wide = functional.widen(x)
    kept = [size for axis, size in enumerate(x.shape) if axis not in axes]
    gamma = ops.ones(kept, wide.dtype) if gamma is None else gamma
    beta = ops.zeros(kept, wide.dtype) if beta is None else beta
    gamma, beta = (
        jnp.expand_dims(ops.cast(v, wide.dtype), axes) for v in (gamma, beta)
    )
    y, mean, variance = _normalize(wide, gamma, beta, axes, epsilon)
    moments = (jnp.squeeze(moment, axes) for moment in (mean, variance))
    return ops.cast(y, x.dtype), Moments(functional.count_samples(x, axes), *moments)


def dropout(
    x: Tensor,
    rate: float | Tensor,
    seed: Tensor,
    noise_shape: Shape | None = None,
) -> Tensor:
    """Apply `functional.dropout`, in short rows."""
    if noise_shape is not None:
        return functional.dropout(x, rate, seed, noise_shape)
    return _in_rows(lambda x: functional.dropout(x, rate, seed), x)


def thinning(
    x: Tensor,
    rate: float | Tensor,
    seed: Tensor,
    noise_shape: Shape | None = None,
) -> Tensor:
    """Apply `functional.thinning`, in short rows."""
    if noise_shape is not None:
        return functional.thinning(x, rate, seed, noise_shape)
    return _in_rows(lambda x: functional.thinning(x, rate, seed), x)


def remat(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that is computed again for its gradient."""
    repeated: Callable[..., Any] = jax.checkpoint(function)
    return repeated


@functools.partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def _normalize(
    x: Tensor, gamma: Tensor, beta: Tensor, axes: tuple[int, ...], epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y, the mean and the variance: BN, Alg. 1; all but x broadcast to it."""
    deviation, mean, variance = _deviation(x, axes, epsilon)
    y = deviation * (gamma * lax.rsqrt(variance + epsilon)) + beta
    return y, mean, variance


def _tangents(
    axes: tuple[int, ...], epsilon: float, primals: Any, tangents: Any
) -> tuple[Any, Any]:
    """Return `_normalize`'s results and their tangents.

    They are linear in the tangents of x, gamma and beta, with one sum over the samples
    for each of two. So is the backward pass, which JAX makes of it: BN, section 3.
    """
    x, gamma, beta = primals
    dx, dgamma, dbeta = tangents
    deviation, mean, variance = _deviation(x, axes, epsilon)
    inverse = lax.rsqrt(variance + epsilon)
    y = deviation * (gamma * inverse) + beta
    dmean = _mean(dx, axes)
    half_dvariance = _mean(deviation * dx, axes)
    dlog_stddev = half_dvariance * jnp.square(inverse)
    dy = (
        gamma * inverse * dx
        + deviation * (inverse * (dgamma - gamma * dlog_stddev))
        + (dbeta - gamma * inverse * dmean)
    )
    return (y, mean, variance), (dy, dmean, 2 * half_dvariance)


_normalize.defjvp(_tangents)


def _deviation(
    x: Tensor, axes: tuple[int, ...], epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return x less its mean, the mean and the variance: BN, Alg. 1, lines 1 and 2."""
    shift = _mean(x, axes)
    variance = _mean(jnp.square(x - shift), axes)
    # False also where a sum is infinite or NaN.
    is_exact = jnp.all(jnp.abs(shift) <= LARGE_MEAN * jnp.sqrt(variance + epsilon))
    is_exact &= jnp.all(jnp.isfinite(variance))
    shift, mean, variance = lax.cond(
        is_exact,
        lambda x: (shift, jnp.zeros_like(shift), variance),
        lambda x: _moments_in_two_steps(x, axes),
        x,
    )
    # An infinite variance makes every output beta, and no tangent 0 times infinity.
    deviation = jnp.where(jnp.isinf(variance), 0, x - shift - mean)
    return deviation, shift + mean, variance


def _moments_in_two_steps(
    x: Tensor, axes: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the two tensors whose sum is the mean, and the variance.

    The mean of what is left after the first one is subtracted corrects it.
    """
    # A power of two costs no digits, and no sum is larger than the largest term.
    scale = 2.0 ** -math.ceil(math.log2(_count(x, axes)))
    shift = functional.saturate(_mean(x * scale, axes) / scale)
    rest = x - shift
    mean = _mean(rest * scale, axes) / scale
    # Infinity less a finite number is infinite, and not NaN.
    square = jnp.minimum(jnp.square(mean), jnp.finfo(mean.dtype).max)
    variance = _mean(jnp.square(rest), axes) - square
    return shift, mean, jnp.maximum(variance, 0)


def _mean(values: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return the mean over the axes; 0 where there are no samples."""
    return jnp.sum(values, axes, keepdims=True) / _count(values, axes)


def _count(values: Tensor, axes: tuple[int, ...]) -> int:
    sizes: list[int] = [values.shape[axis] for axis in axes]
    return max(math.prod(sizes), 1)


def _in_rows(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a function that treats each element by its place in the flat tensor."""
    if x.size % ROW:
        return function(x)
    return jnp.reshape(function(jnp.reshape(x, (-1, ROW))), x.shape)
