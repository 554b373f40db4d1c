"""The equations of the two papers, one function each, stateless, in `keras.ops`.

Batch normalization: Ioffe & Szegedy 2015, arXiv:1502.03167 ("BN" below).
Batch renormalization: Ioffe 2017, arXiv:1702.03275.
Dropout: Srivastava et al. 2014, JMLR 15(56):1929-1958 ("SRV" below). The paper's p
is the probability of *keeping* a unit; `rate`, here and in Keras, is 1 - p.

Statistics are computed in float32, or wider where the input is wider.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from keras import ops
from keras.backend import standardize_dtype

from kerasnorm._words import int32, low_bits, mix, shift_right, uniform

Tensor = Any
"""A tensor of Keras's backend, or what `keras.ops` takes in its place."""

Shape = tuple[int | None, ...]
"""Sizes of a tensor's axes, `None` where not known."""

BLOCK = 1024
"""Terms that are added one after another, at most. A sum of more is one of blocks."""

MASK_BITS = 16
"""Random bits that decide over one element: rates are multiples of 2**-16."""


class Moments(NamedTuple):
    """Count, mean and biased variance of the valid samples.

    `mean` and `variance` have the shape of the axes that were not reduced. `count`
    has it too where a mask was given, and is a scalar otherwise.
    """

    count: Tensor
    mean: Tensor
    variance: Tensor


def widen(x: Tensor) -> Tensor:
    """Cast to float32, or keep a dtype that is wider."""
    return ops.cast(x, widened(x.dtype))


def widened(dtype: Any) -> str:
    """Return the dtype that `widen` gives: float64 or float32."""
    # keras.backend.result_type makes float32 of float64 on JAX and PyTorch.
    return "float64" if standardize_dtype(dtype) == "float64" else "float32"


def count_samples(
    x: Tensor, axes: tuple[int, ...], mask: Tensor | None = None
) -> Tensor:
    """Return m, the number of valid samples in the reduced `axes`: see `moments`."""
    x = widen(x)
    if mask is None:
        return ops.cast(math.prod([ops.shape(x)[axis] for axis in axes]), x.dtype)
    return total(ops.broadcast_to(ops.cast(mask, x.dtype), ops.shape(x)), axes)


def total(values: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Sum over `axes` in blocks, so that the error hardly grows with the terms.

    A backend may add one term after another. The rounding of a sum of n terms then
    grows with n: in float32 the mean of 2 million squares is off by 3e-3.
    """
    sizes = [ops.shape(values)[axis] for axis in axes]
    if all(isinstance(size, int) for size in sizes) and math.prod(sizes) <= BLOCK:
        return ops.sum(values, axes)
    for axis in sorted(axes, reverse=True):
        values = _sum_axis(values, axis)
    return values


def _sum_axis(values: Tensor, axis: int, levels: int = 2) -> Tensor:
    """Sum over an axis: the terms of each block, then the blocks."""
    size = ops.shape(values)[axis]
    if levels == 0 or (isinstance(size, int) and size <= BLOCK):
        return ops.sum(values, axis)
    before, after = ops.shape(values)[:axis], ops.shape(values)[axis + 1 :]
    whole = size // BLOCK
    every = (slice(None),) * axis
    blocks = ops.reshape(
        values[(*every, slice(whole * BLOCK))], (*before, whole, BLOCK, *after)
    )
    rest = ops.sum(values[(*every, slice(whole * BLOCK, None))], axis)
    return _sum_axis(ops.sum(blocks, axis + 1), axis, levels - 1) + rest


def moments(x: Tensor, axes: tuple[int, ...], mask: Tensor | None = None) -> Moments:
    """Return the mean and the variance of the mini-batch: BN, Alg. 1, lines 1 and 2.

    There are two passes, so that a large mean costs the variance no digits: first the
    mean, then the mean square of the deviations from it. In between the mean of the
    deviations corrects the mean. It is 0 but for the rounding of a long sum (Chan,
    Golub & LeVeque 1983, "Algorithms for computing the sample variance", eq. 1.7).
    Where `axes` hold no valid sample the count, the mean and the variance are 0. A
    variance that is too large for the dtype is infinite.

    Args:
        x: Tensor.
        axes: The axes to reduce.
        mask: Boolean tensor that broadcasts to `x`; `False` leaves a sample out.

    Returns:
        `Moments`.
    """
    _, shift, batch = moments_around_shift(widen(x), axes, mask)
    return Moments(batch.count, shift + batch.mean, batch.variance)


def moments_around_shift(
    x: Tensor, axes: tuple[int, ...], mask: Tensor | None
) -> tuple[Tensor, Tensor, Moments]:
    """Return x less a shift, the shift, and the `moments` of the former.

    The shift is the mean but for its rounding, which is 5e-4 at a mean of 10,000. So
    the mean is the sum of two numbers. No gradient flows through the shift.

    Args:
        x: Tensor, of the dtype that the statistics are to have.
        axes: The axes to reduce.
        mask: Boolean tensor that broadcasts to `x`; `False` leaves a sample out.
    """
    count = count_samples(x, axes, mask)
    divisor = ops.maximum(count, 1)
    # A power of two costs no digits, and no sum is larger than the largest term.
    sizes = [ops.shape(x)[axis] for axis in axes]
    terms = math.prod(sizes) if all(isinstance(n, int) for n in sizes) else 2**31
    scale = 2.0 ** -math.ceil(math.log2(max(terms, 1)))

    def total_of_valid(values: Tensor) -> Tensor:
        return total(values if mask is None else ops.where(mask, values, 0), axes)

    def mean_of_valid(values: Tensor) -> Tensor:
        return total_of_valid(values * scale) / (divisor * scale)

    shift = ops.stop_gradient(mean_of_valid(x))  # Alg. 1, line 1
    rest = x - ops.expand_dims(shift, axes)
    mean = mean_of_valid(rest)
    deviation = rest - ops.expand_dims(mean, axes)
    variance = total_of_valid(ops.square(deviation)) / divisor  # Alg. 1, line 2
    return rest, shift, Moments(count, mean, variance)


def merge_moments(first: Moments, second: Moments) -> Moments:
    """Return the moments of two sets of samples together, from the moments of each.

    Chan, Golub & LeVeque 1979, "Updating formulae and a pairwise algorithm for
    computing sample variances", eq. 2.1, with M2 = count * variance. Stable, unlike
    E[x^2] - E[x]^2. Either count may be 0.
    """
    count = first.count + second.count
    share = second.count / ops.maximum(count, 1)
    delta = second.mean - first.mean
    weight = first.count * share
    # An infinite square of weight 0 is nothing, and not NaN.
    between = ops.where(weight > 0, ops.square(delta) * weight, 0)
    m2 = first.count * first.variance + second.count * second.variance + between
    return Moments(count, first.mean + delta * share, m2 / ops.maximum(count, 1))


def pool_moments(parts: Moments) -> Moments:
    """Return the moments of all samples, from those of several sets.

    It is `merge_moments` for any number of sets, stacked along the first axis. With
    share_i = count_i / count, mean = sum(share_i * mean_i), corrected as in `moments`,
    and variance = sum(share_i * (variance_i + (mean_i - mean)^2)). Counts may be 0.
    """
    count = ops.sum(parts.count, 0)
    share = parts.count / ops.maximum(count, 1)
    mean = ops.sum(share * parts.mean, 0)
    mean = mean + ops.sum(share * (parts.mean - mean), 0)
    spread = parts.variance + ops.square(parts.mean - mean)
    # An infinite square of weight 0 is nothing, and not NaN.
    variance = ops.sum(ops.where(share > 0, share * spread, 0), 0)
    return Moments(count, mean, variance)


def saturate(values: Tensor) -> Tensor:
    """Return the values, but at most a quarter of the largest of their dtype.

    Averages and differences of them are finite. What is NaN stays NaN.
    """
    largest = float(np.finfo(standardize_dtype(values.dtype)).max) / 4
    if hasattr(values, "clip"):  # takes numbers, of which keras.ops makes tensors
        return values.clip(-largest, largest)
    return ops.clip(values, -largest, largest)


def ghost_batches(
    x: Tensor, size: int, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Split the first axis into ghost batches: Hoffer et al. 2017, Alg. 1.

    Hoffer, Hubara & Soudry 2017, "Train longer, generalize better",
    arXiv:1705.08741. The last ghost batch may have fewer samples than the others.

    Args:
        x: Tensor of shape (samples, ...).
        size: Samples in a ghost batch.
        mask: Boolean tensor of `x`'s rank that broadcasts to `x`.

    Returns:
        `x` as (ghost batches, size, ...), the last one filled up with 0, and a mask of
        that rank that leaves the filling out.
    """
    shape = ops.shape(x)
    samples, rank = shape[0], len(shape)
    batches = (samples + size - 1) // size
    if mask is None:
        mask = ops.ones((1,) * rank, dtype="bool")
    mask = ops.broadcast_to(mask, (samples, *ops.shape(mask)[1:]))

    def split(values: Tensor) -> Tensor:
        filling = [[0, batches * size - samples], *([[0, 0]] * (rank - 1))]
        sizes = ops.shape(values)[1:]
        return ops.reshape(ops.pad(values, filling), (batches, size, *sizes))

    return split(x), ops.cast(split(ops.cast(mask, "int8")), "bool")


def unbiased_variance(count: Tensor, variance: Tensor) -> Tensor:
    """Return m / (m - 1) * variance, Bessel's correction: BN, Alg. 2, line 10.

    It is 0 where there are fewer than two samples: nothing can be estimated there.
    """
    return ops.where(count > 1, variance * (count / ops.maximum(count - 1, 1)), 0)


def normalize(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    epsilon: float,
) -> Tensor:
    """Normalize, scale and shift: BN, Alg. 1, lines 3 and 4.

    y = gamma * (x - mean) / sqrt(variance + epsilon) + beta. The mean is subtracted
    first. As a part of the shift it would cost the digits that x and the mean share.

    Args:
        x: Tensor.
        mean: Mean, broadcastable to `x`.
        variance: Variance, broadcastable to `x`.
        gamma: Scale, broadcastable to `x`, or `None` for 1.
        beta: Shift, broadcastable to `x`, or `None` for 0.
        epsilon: Added to the variance.
    """
    # Of an infinite variance no gradient comes: it would be infinity times 0.
    factor = ops.where(ops.isinf(variance), 0.0, ops.rsqrt(variance + epsilon))
    if gamma is not None:
        factor = factor * gamma
    y = (x - mean) * factor
    return y if beta is None else y + beta


def normalize_with(
    x: Tensor,
    axes: tuple[int, ...],
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    epsilon: float,
) -> Tensor:
    """Apply `normalize` to statistics and parameters of the shape of the kept axes.

    Returns:
        A tensor of `x`'s shape and dtype.
    """
    wide = widen(x)
    mean, variance, gamma, beta = (
        None if v is None else ops.expand_dims(ops.cast(v, wide.dtype), axes)
        for v in (mean, variance, gamma, beta)
    )
    return ops.cast(normalize(wide, mean, variance, gamma, beta, epsilon), x.dtype)


def normalize_batch(
    x: Tensor,
    axes: tuple[int, ...],
    gamma: Tensor | None,
    beta: Tensor | None,
    epsilon: float,
    mask: Tensor | None = None,
) -> tuple[Tensor, Moments]:
    """Normalize `x` by its own `moments` over `axes`: BN, Alg. 1, whole.

    Returns:
        A tensor of `x`'s shape and dtype, and the moments.
    """
    rest, shift, batch = moments_around_shift(widen(x), axes, mask)
    y = normalize_with(rest, axes, batch.mean, batch.variance, gamma, beta, epsilon)
    batch = Moments(batch.count, shift + batch.mean, batch.variance)
    return ops.cast(y, x.dtype), batch


def exponential_average(moving: Tensor, batch: Tensor, momentum: float) -> Tensor:
    """Return the moving average in which the old value weighs `momentum`: BN, 3.1."""
    return moving * momentum + batch * (1.0 - momentum)


def debiased_average(
    moving: Tensor,
    weight: Tensor,
    batch: Tensor,
    batch_weight: Tensor,
    momentum: float,
) -> tuple[Tensor, Tensor]:
    """Return the exponential average weighted by samples, free of its initial value.

    It is the sum of all batches over the sum of their weights. A batch is weighted by
    its samples w and by its age: W_t = momentum * W_{t-1} + (1 - momentum) * w_t and
    W_0 = 0 (Kingma & Ba 2015, arXiv:1412.6980, section 3, for w = 1).

    Returns:
        The new average and the new weight W_t.
    """
    batch_weight = (1.0 - momentum) * batch_weight
    return cumulative_average(moving, momentum * weight, batch, batch_weight)


def cumulative_average(
    moving: Tensor, weight: Tensor, batch: Tensor, batch_weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the average over all batches, each weighted by its samples.

    For batches of one size it is E_B of BN, Alg. 2, line 10. A batch of weight 0
    changes nothing.

    Returns:
        The new average and the new weight, `weight + batch_weight`.
    """
    total = weight + batch_weight
    share = batch_weight / ops.where(total > 0, total, 1)
    return moving + share * (batch - moving), total


def renorm_correction(
    mean: Tensor,
    stddev: Tensor,
    renorm_mean: Tensor,
    renorm_stddev: Tensor,
    rmin: float | Tensor | None = None,
    rmax: float | Tensor | None = None,
    dmax: float | Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return r and d of batch renormalization: Ioffe 2017, Alg. 1.

    r = clip(stddev / renorm_stddev, rmin, rmax) and
    d = clip((mean - renorm_mean) / renorm_stddev, -dmax, dmax); the layer's output
    is (x_hat * r + d) * gamma + beta. No gradient flows through either. Both are
    finite: an infinite r would make NaN of an x_hat of 0, and so would a large one in
    the gradient. An infinite stddev leaves nothing else but 0 of x_hat, so r is 1.
    """
    r = ops.where(ops.isinf(stddev), 1.0, saturate(stddev / renorm_stddev))
    d = saturate((mean - renorm_mean) / renorm_stddev)
    if rmin is not None:
        r = ops.maximum(r, rmin)
    if rmax is not None:
        r = ops.minimum(r, rmax)
    if dmax is not None:
        d = ops.clip(d, -dmax, dmax)
    return ops.stop_gradient(r), ops.stop_gradient(d)


def drop_threshold(rate: float | Tensor) -> int | Tensor:
    """Return round(rate * 2**16): a 16-bit integer below it drops its unit."""
    if isinstance(rate, (int, float)):
        return round(rate * 2**MASK_BITS)
    return ops.cast(ops.round(ops.cast(rate, "float32") * 2**MASK_BITS), "int32")


def keep_fraction(rate: float | Tensor) -> float | Tensor:
    """Return the exact probability that `keep_mask` keeps a unit: SRV's p.

    It differs from 1 - `rate` by at most 2**-17 = 7.6e-6.
    """
    threshold = drop_threshold(rate)
    if isinstance(threshold, int):
        return 1.0 - threshold / 2**MASK_BITS
    return 1.0 - ops.cast(threshold, "float32") / 2**MASK_BITS


def random_words(positions: Tensor, seed: Tensor) -> Tensor:
    """Return a random 32-bit word, as int32, for each position.

    The word is a hash of the seed and the position and depends on nothing else. So
    every backend and every execution mode gives the same. In arithmetic modulo 2**32

        a = mix(seed[0] + 0x9e3779b9),  key_0 = mix(a ^ seed[1])
        b = mix(seed[0] ^ 0x85ebca6b),  key_1 = mix(b + seed[1])
        word_i = mix(mix(i ^ key_0) + i + key_1)

    where mix is the 32-bit finalizer of least known bias, "lowbias32" (C. Wellons,
    "Prospecting for Hash Functions", 2018). Adding i between the rounds keeps the
    words from being a permutation of the positions, which would never repeat a word.

    Args:
        positions: Integers, int32.
        seed: Integer tensor of shape (2,), as `keras.random.SeedGenerator` keeps it:
            the seed and the number of draws so far. The low 32 bits of each count.
    """
    seed = ops.cast(seed, "int32")
    key_0 = mix(ops.bitwise_xor(mix(seed[0] + int32(0x9E3779B9)), seed[1]))
    key_1 = mix(mix(ops.bitwise_xor(seed[0], int32(0x85EBCA6B))) + seed[1])
    return mix(mix(ops.bitwise_xor(positions, key_0)) + positions + key_1)


def keep_mask(
    shape: tuple[int | Tensor, ...], rate: float | Tensor, seed: Tensor
) -> Tensor:
    """Draw r_j ~ Bernoulli(p) with p = `keep_fraction(rate)`: SRV, section 4.

    Integers decide, not floats: a unit is kept if its 16-bit draw is at least
    `drop_threshold(rate)`, so the rate is exact in every dtype. Units 2i and 2i + 1
    draw the low and the high half of word i.

    Returns:
        Boolean tensor of shape `shape`; `True` keeps.
    """
    units = math.prod(shape)
    words = random_words(ops.arange((units + 1) // 2, dtype="int32"), seed)
    low, high = low_bits(words, 16), shift_right(words, 16)
    draws = ops.reshape(ops.stack([low, high], axis=-1), (-1,))[:units]
    return ops.reshape(draws >= drop_threshold(rate), shape)


def thin(x: Tensor, mask: Tensor) -> Tensor:
    """Return y = r * x, the paper's own form in training: SRV, section 4."""
    return ops.where(mask, x, ops.zeros_like(x))


def scale_by_keep_fraction(x: Tensor, rate: float | Tensor) -> Tensor:
    """Return y = p * x, its form at inference: SRV, section 4 (W_test = p W)."""
    return ops.cast(widen(x) * _in_dtype_of(widen(x), keep_fraction(rate)), x.dtype)


def inverted_dropout(x: Tensor, mask: Tensor, rate: float | Tensor) -> Tensor:
    """Return y = r * x / p, scaled in training: SRV, section 10, last paragraph.

    E[y] = x exactly, since p is the exact fraction. At `rate` 1 all is dropped.
    """
    keep = _in_dtype_of(widen(x), keep_fraction(rate))
    scale = ops.where(keep > 0, 1 / ops.where(keep > 0, keep, 1), 0)
    return thin(ops.cast(widen(x) * scale, x.dtype), mask)


def gaussian_noise(
    shape: tuple[int | Tensor, ...], rate: float | Tensor, seed: Tensor
) -> Tensor:
    """Draw multiplicative noise r ~ N(1, rate / (1 - rate)): SRV, section 10.

    It has the mean and the variance of inverted dropout's r / p. Each normal deviate is
    made of 24 bits of each of two words of `random_words` (Box & Muller 1958).

    Returns:
        Float32 tensor of shape `shape`, to multiply the activations with.
    """
    unit = ops.arange(math.prod(shape), dtype="int32")
    radius = ops.sqrt(-2 * ops.log(uniform(random_words(2 * unit, seed))))
    normal = radius * _cosine_of_turns(uniform(random_words(2 * unit + 1, seed)))
    rate = ops.cast(rate, "float32")
    return 1 + ops.reshape(normal, shape) * ops.sqrt(rate / (1 - rate))


def _cosine_of_turns(turns: Tensor) -> Tensor:
    """Return cos(2 pi t) for t in [0, 1].

    It is the sine of an angle of at most a quarter turn, where six terms of its series
    are exact to 6e-8. XLA's cosine takes four times as long as all else here.
    """
    angle = 2 * math.pi * (ops.abs(turns - 0.5) - 0.25)
    square = ops.square(angle)
    series = 0.0
    for power in (11, 9, 7, 5, 3, 1):
        series = series * square + (-1) ** (power // 2) / math.factorial(power)
    return angle * series


def dropout(
    x: Tensor,
    rate: float | Tensor,
    seed: Tensor,
    noise_shape: Shape | None = None,
) -> Tensor:
    """Apply `inverted_dropout` with a mask drawn from `seed`.

    The mask has the shape of `x`, or `noise_shape`, where `None` stands for `x`'s size.
    """
    mask = keep_mask(mask_shape(noise_shape, x), rate, seed)
    return inverted_dropout(x, mask, rate)


def thinning(
    x: Tensor,
    rate: float | Tensor,
    seed: Tensor,
    noise_shape: Shape | None = None,
) -> Tensor:
    """Apply `thin` with a mask drawn from `seed`, shaped as in `dropout`."""
    return thin(x, keep_mask(mask_shape(noise_shape, x), rate, seed))


def gaussian_dropout(x: Tensor, rate: float | Tensor, seed: Tensor) -> Tensor:
    """Return y = r * x with r from `gaussian_noise`: SRV, section 10."""
    noise = gaussian_noise(ops.shape(x), rate, seed)
    return ops.cast(widen(x) * _in_dtype_of(widen(x), noise), x.dtype)


def mask_shape(noise_shape: Shape | None, x: Tensor) -> tuple[int | Tensor, ...]:
    """Return the shape of the mask for `x`: sizes of `noise_shape`, or `x`'s."""
    shape: tuple[int | Tensor, ...] = ops.shape(x)
    if noise_shape is None:
        return shape
    aligned = shape[len(shape) - len(noise_shape) :]
    return tuple(
        known if size is None else size
        for size, known in zip(noise_shape, aligned, strict=True)
    )


def _in_dtype_of(x: Tensor, value: float | Tensor) -> Tensor:
    return ops.cast(value, x.dtype)
