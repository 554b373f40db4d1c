"""The papers' equations in float64 NumPy: the truth the library is tested against.

Written from the papers alone; imports neither keras nor kerasnorm. Statistics have
the shape of the normalised axes, e.g. ``(C,)``; `axes` are the axes reduced over.

- S: Srivastava et al. 2014, JMLR 15 (its p, the probability of keeping, is 1 - rate)
- IS: Ioffe and Szegedy 2015, arXiv 1502.03167
- I: Ioffe 2017, arXiv 1702.03275 (batch renormalization)
- C: Chan, Golub and LeVeque 1979 (merging partial moments)
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Axes = tuple[int, ...]


class Moments(NamedTuple):
    count: Array  # type: ignore[assignment]  # tuple.count is a method
    mean: Array
    variance: Array


class Gradients(NamedTuple):
    x: Array
    gamma: Array
    beta: Array


def moments(x: Array, axes: Axes, mask: Array | None = None) -> Moments:
    """IS Alg. 1, lines 1 and 2, over the samples that the mask lets through."""
    x = np.asarray(x, np.float64)
    valid = _valid(x, mask)
    m = valid.sum(axes)
    mean = (x * valid).sum(axes) / np.maximum(m, 1)
    deviation = (x - np.expand_dims(mean, axes)) * valid
    return Moments(m, mean, (deviation**2).sum(axes) / np.maximum(m, 1))


def normalize(
    x: Array,
    axes: Axes,
    mean: Array,
    variance: Array,
    gamma: Array,
    beta: Array,
    epsilon: float,
) -> Array:
    """IS Alg. 1, lines 3 and 4."""
    mean, variance, gamma, beta = _expand(axes, mean, variance, gamma, beta)
    x_hat = (np.asarray(x, np.float64) - mean) / np.sqrt(variance + epsilon)
    return gamma * x_hat + beta


def batch_norm(
    x: Array,
    axes: Axes,
    gamma: Array,
    beta: Array,
    epsilon: float,
    mask: Array | None = None,
) -> Array:
    """IS Alg. 1: masked samples are normalised too, but do not count."""
    _, mean, variance = moments(x, axes, mask)
    return normalize(x, axes, mean, variance, gamma, beta, epsilon)


def batch_norm_gradients(
    dy: Array,
    x: Array,
    axes: Axes,
    gamma: Array,
    epsilon: float,
    mask: Array | None = None,
    r: Array | float = 1.0,
    d: Array | float = 0.0,
) -> Gradients:
    """IS section 3, the six partial derivatives; with I's r and d held constant."""
    x = np.asarray(x, np.float64)
    valid = _valid(x, mask)
    m, mean, variance = moments(x, axes, mask)
    m, mean, variance, gamma, r, d = _expand(
        axes, np.maximum(m, 1), mean, variance, gamma, r, d
    )
    deviation = x - mean
    inverse = 1 / np.sqrt(variance + epsilon)
    x_hat = deviation * inverse * r + d

    dx_hat = dy * gamma * r
    dvariance = (dx_hat * deviation * -0.5 * inverse**3).sum(axes, keepdims=True)
    dmean = -(dx_hat * inverse).sum(axes, keepdims=True) + dvariance * (
        -2 * deviation * valid / m
    ).sum(axes, keepdims=True)
    dx = dx_hat * inverse + valid * (dvariance * 2 * deviation / m + dmean / m)
    return Gradients(dx, (dy * x_hat).sum(axes), np.asarray(dy).sum(axes))


def renorm_correction(
    mean: Array,
    stddev: Array,
    renorm_mean: Array,
    renorm_stddev: Array,
    rmin: float = 0.0,
    rmax: float = np.inf,
    dmax: float = np.inf,
) -> tuple[Array, Array]:
    """I Alg. 1: r = clip(stddev_B / stddev), d = clip((mean_B - mean) / stddev)."""
    r = np.clip(stddev / renorm_stddev, rmin, rmax)
    d = np.clip((mean - renorm_mean) / renorm_stddev, -dmax, dmax)
    return r, d


def batch_renorm(
    x: Array,
    axes: Axes,
    gamma: Array,
    beta: Array,
    epsilon: float,
    r: Array,
    d: Array,
    mask: Array | None = None,
) -> Array:
    """I Alg. 1: x_hat = (x - mean_B) / stddev_B * r + d, y = gamma x_hat + beta."""
    ones, zeros = np.ones_like(r), np.zeros_like(d)
    x_hat = batch_norm(x, axes, ones, zeros, epsilon, mask)
    r, d, gamma, beta = _expand(axes, r, d, gamma, beta)
    return gamma * (x_hat * r + d) + beta


def merge(first: Moments, second: Moments) -> Moments:
    """C (1.5): M2 = M2_A + M2_B + delta^2 m_A m_B / (m_A + m_B)."""
    count = first.count + second.count
    some = np.maximum(count, 1)
    delta = second.mean - first.mean
    mean = first.mean + delta * second.count / some
    m2 = first.count * first.variance + second.count * second.variance
    m2 = m2 + delta**2 * first.count * second.count / some
    return Moments(count, np.where(count > 0, mean, 0.0), m2 / some)


def unbiased_variance(count: Array, variance: Array) -> Array:
    """IS Alg. 2, line 10: m / (m - 1) times the variance; 0 where it is unknown."""
    return np.where(count > 1, count / np.maximum(count - 1, 1) * variance, 0.0)


def exponential_average(
    initial: Array | float, batches: Sequence[Array | float], momentum: float
) -> Array:
    """The initial value and each batch, aged by the momentum once per later batch."""
    steps = len(batches)
    aged = momentum**steps * np.asarray(initial, np.float64)
    for step, batch in enumerate(batches):
        aged = aged + momentum ** (steps - 1 - step) * (1 - momentum) * batch
    return aged


def debiased_average(
    batches: Sequence[Array], counts: Sequence[Array], momentum: float
) -> Array:
    """The mean of all batches, each weighted by its samples and by its age."""
    ages = momentum ** np.arange(len(batches))[::-1].astype(np.float64)
    shape = np.broadcast(batches[0], counts[0]).shape
    weights = np.array(
        [np.broadcast_to(a * n, shape) for a, n in zip(ages, counts, strict=True)]
    )
    return np.average(np.array(batches), axis=0, weights=weights)


def cumulative_average(batches: Sequence[Array], counts: Sequence[Array]) -> Array:
    """IS Alg. 2: the expectation over all batches, each weighted by its samples."""
    return debiased_average(batches, counts, momentum=1.0)


def keep_threshold(rate: float) -> int:
    """The number of the 2^16 equally likely draws that drop a unit."""
    return round(rate * 2**16)


def keep_fraction(rate: float) -> float:
    """S section 4's p, exactly as 16-bit draws realise it."""
    return 1 - keep_threshold(rate) / 2**16


def thin(x: Array, mask: Array) -> Array:
    """S section 4: y~ = r * y."""
    return np.where(mask, x, 0.0)


def scale_weights(x: Array, rate: float) -> Array:
    """S section 4, figure 2b: p W y = W (p y) at test time."""
    return keep_fraction(rate) * np.asarray(x, np.float64)


def inverted_dropout(x: Array, mask: Array, rate: float) -> Array:
    """S section 10: r * y / p in training, so that nothing is scaled at test time."""
    if rate == 1:
        return np.zeros_like(x)
    return thin(x, mask) / keep_fraction(rate)


def random_words(count: int, seed: Sequence[int]) -> NDArray[np.uint32]:
    """The documented counter generator, in arithmetic modulo 2^32.

    word_i = mix(mix(i ^ key_0) + i + key_1), with key_0 and key_1 hashed of the seed
    and the number of draws before this one.
    """
    with np.errstate(over="ignore"):
        first, draws = (np.array([s & 0xFFFFFFFF], np.uint32) for s in seed)
        key_0 = _mix(_mix(first + np.uint32(0x9E3779B9)) ^ draws)
        key_1 = _mix(_mix(first ^ np.uint32(0x85EBCA6B)) + draws)
        i = np.arange(count, dtype=np.uint32)
        return _mix(_mix(i ^ key_0) + i + key_1)


def keep_mask(
    shape: tuple[int, ...], rate: float, seed: Sequence[int]
) -> NDArray[np.bool_]:
    """S section 4's r: kept iff its draw, low half of a word first, is large enough."""
    size = int(np.prod(shape))
    words = random_words((size + 1) // 2, seed)
    draws = np.stack([words & 0xFFFF, words >> 16], axis=-1).ravel()[:size]
    return (draws >= keep_threshold(rate)).reshape(shape)


def gaussian_noise(shape: tuple[int, ...], rate: float, seed: Sequence[int]) -> Array:
    """S section 10's N(1, rate / (1 - rate)), by Box and Muller from pairs of words.

    Words 2i and 2i + 1 give the radius and the angle of number i.
    """
    words = random_words(2 * int(np.prod(shape)), seed).reshape(-1, 2)
    radius, angle = ((words >> 8).T + 0.5) / 2**24
    normal = np.sqrt(-2 * np.log(radius)) * np.cos(2 * np.pi * angle)
    noise: Array = 1 + normal.reshape(shape) * np.sqrt(rate / (1 - rate))
    return noise


def _mix(h: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The finalizer "lowbias32" (Wellons 2018)."""
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x7FEB352D)
    h = (h ^ (h >> np.uint32(15))) * np.uint32(0x846CA68B)
    return h ^ (h >> np.uint32(16))


def _valid(x: Array, mask: Array | None) -> Array:
    if mask is None:
        return np.ones_like(x)
    return np.broadcast_to(mask, x.shape).astype(np.float64)


def _expand(axes: Axes, *statistics: Array | float) -> list[Array]:
    """Statistics of the normalised axes, broadcastable to the inputs."""
    return [
        np.expand_dims(s, axes) if np.ndim(s) else np.asarray(s) for s in statistics
    ]
