"""The functions of `kerasnorm.functional` that decide the speed, for TensorFlow.

The same results with fewer passes over memory, eagerly, in graphs and under XLA.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from kerasnorm import functional
from kerasnorm.functional import Moments, Shape, Tensor

SMALL = 100_000
"""Up to so many elements composed operations beat the start-up of the fused kernel."""

ROW = 8
"""Elements of a row in which noise is drawn: of loops over rows as short as this XLA
makes code that takes 0.5 to 0.9 of the time of that for long ones."""

UNKNOWN_BATCH = 64
"""What a batch of unknown size is taken for when it is compared with `SMALL`."""

LARGE_MEAN = 16.0
"""In standard deviations. The fused kernel's mean is a plain float32 sum, whose
rounding an output feels in proportion to this ratio: 1e-4 at 16, 0.1 at 10,000."""

Sum = Callable[[Tensor], Tensor]


def normalize_batch(
    x: Tensor,
    axes: tuple[int, ...],
    gamma: Tensor | None,
    beta: Tensor | None,
    epsilon: float,
    mask: Tensor | None = None,
) -> tuple[Tensor, Moments]:
    """`functional.normalize_batch` with the closed-form backward pass: BN, section 3.

    Without a mask x is seen as (samples, features), for which TensorFlow's fused
    kernel runs; composed operations run for few elements, under XLA, whose form of
    the fused kernel has a one-pass variance, and where there is a mask.
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
    """`functional.normalize_with` as one multiply-add: y = factor * x + shift.

    Its error grows with the mean in standard deviations, about 1e-7 times as large.
    For channels-last images it is the operation that TensorFlow's graph optimizer
    folds into a convolution before it.
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


def dropout(
    x: Tensor,
    rate: float | Tensor,
    seed: Tensor,
    noise_shape: Shape | None = None,
) -> Tensor:
    """`functional.dropout`, compiled."""
    return _multiply_by_noise(functional.dropout, x, rate, seed, noise_shape)


def thinning(
    x: Tensor,
    rate: float | Tensor,
    seed: Tensor,
    noise_shape: Shape | None = None,
) -> Tensor:
    """`functional.thinning`, compiled."""
    return _multiply_by_noise(functional.thinning, x, rate, seed, noise_shape)


def gaussian_dropout(x: Tensor, rate: float | Tensor, seed: Tensor) -> Tensor:
    """`functional.gaussian_dropout`, compiled."""
    return _multiply_by_noise(functional.gaussian_dropout, x, rate, seed)


def _multiply_by_noise(
    function: Callable[..., Tensor],
    x: Tensor,
    rate: float | Tensor,
    seed: Tensor,
    noise_shape: Shape | None = None,
) -> Tensor:
    """y = r * x with r compiled by XLA in every mode.

    y is linear in x, so the backward pass is the same function of dy: it draws the
    same noise again, which takes less time than to store and to read it. Not so for
    few elements, where starting a compiled function costs more than the noise. There
    r = `function`(1) is drawn once, and as it waits for nothing but the seed, beside
    what the layers before are computing.
    """
    x = tf.convert_to_tensor(x)
    arguments = [seed]
    if tf.is_tensor(rate):
        arguments.append(rate)
        rate = None
    size = math.prod(1 if size is None else size for size in x.shape)
    in_rows = noise_shape is None and size % ROW == 0
    compiled = _compile(function, rate, noise_shape, 2 if in_rows else x.shape.rank)

    def apply(x: Tensor, *arguments: Tensor) -> Tensor:
        if not in_rows:
            return compiled(x, *arguments)
        return tf.reshape(compiled(tf.reshape(x, (-1, ROW)), *arguments), tf.shape(x))

    if x.shape.is_fully_defined() and size <= SMALL:
        wide = functional.widen(x)
        ones = tf.ones(x.shape, wide.dtype)
        noise = tf.stop_gradient(apply(ones, *arguments))
        # What is dropped is 0, also where it is infinite or NaN.
        return tf.cast(tf.math.multiply_no_nan(wide, noise), x.dtype)

    @tf.custom_gradient
    def multiply(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        # Captured by the backward pass of a branch of `tf.cond` before the compiled
        # call, in which TensorFlow would take the branch for one that XLA compiles.
        captured = [tf.identity(argument) for argument in arguments]
        y = tf.ensure_shape(apply(x, *captured), x.shape)
        return y, multiply

    return multiply(x)


@functools.cache
def _compile(
    function: Callable[..., Tensor],
    rate: float | None,
    noise_shape: Shape | None,
    rank: int,
) -> Callable[..., Tensor]:
    """A compiled `function` of x, the seed and, where it is not given here, the rate.

    One for each rate and rank: as arguments of one function, each new layer's would
    count as a retracing.
    """
    shape = {} if noise_shape is None else {"noise_shape": noise_shape}

    def multiply(x: Tensor, seed: Tensor, rate: float | Tensor = rate) -> Tensor:
        return function(x, rate, seed, **shape)

    return tf.function(
        multiply, jit_compile=True, autograph=False, reduce_retracing=True
    )


def _normalize_rows(
    x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float, count: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize few (samples, features) by composed operations."""

    @tf.custom_gradient
    def normalize(x: Tensor, gamma: Tensor, beta: Tensor) -> Any:
        rest, shift, mean, variance = _moments_around_mean(x, count, _sum_rows)
        y = _normalize_rest(rest, mean, variance, gamma, beta, epsilon)

        def backward(dy: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
            return _backward(dy, rest, mean, variance, gamma, epsilon, count, _sum_rows)

        return (y, shift + mean, variance), backward

    return normalize(x, gamma, beta)


def _normalize_many_rows(
    x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float, count: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize many (samples, features) by the fused kernel, but not under XLA."""

    @tf.custom_gradient
    def normalize(x: Tensor, gamma: Tensor, beta: Tensor) -> Any:
        def composed() -> tuple[Tensor, ...]:
            rest, *moments = _moments_around_sample(x, count, _sum_rows)
            _, mean, variance = moments
            y = _normalize_rest(rest, mean, variance, gamma, beta, epsilon)
            # What the fused kernel saves.
            return y, *moments, rest, mean, variance, tf.zeros([0])

        def fused() -> tuple[Tensor, ...]:
            return _fused_forward(x, gamma, beta, epsilon, count)

        y, shift, mean, variance, *saved = _if(_is_under_xla(), composed, fused)

        def backward(dy: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
            return _fused_backward(dy, gamma, epsilon, saved)

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
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize over any axes, masked or not; all but `x` broadcastable to it."""

    def total(values: Tensor) -> Tensor:
        return tf.reduce_sum(values, axes, keepdims=True)

    def total_of_valid(values: Tensor) -> Tensor:
        return total(values if mask is None else tf.where(mask, values, 0))

    @tf.custom_gradient
    def normalize(x: Tensor, gamma: Tensor, beta: Tensor) -> Any:
        rest, shift, mean, variance = _moments_around_mean(x, count, total_of_valid)
        y = _normalize_rest(rest, mean, variance, gamma, beta, epsilon)

        def backward(dy: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
            return _backward(
                dy, rest, mean, variance, gamma, epsilon, count, total, mask
            )

        return (y, shift + mean, variance), backward

    return normalize(x, gamma, beta)


def _moments_around_mean(x: Tensor, count: Tensor, total: Sum) -> tuple[Tensor, ...]:
    """BN, Alg. 1, lines 1 and 2; `total` sums over the valid samples.

    A first mean, the shift, is subtracted before the rest is summed, since one float32
    has not the digits of a mean that is large in standard deviations. What the rest
    has of a mean is rounding, so its mean square less the square of its mean loses no
    digits, and costs less than to subtract once more.

    Returns:
        x - shift, the shift, the mean of the rest, and the variance.
    """
    divisor = tf.maximum(count, 1)
    shift = total(x) / divisor
    rest = x - shift
    mean = total(rest) / divisor
    mean_square = total(tf.square(rest)) / divisor
    return rest, shift, mean, tf.maximum(mean_square - tf.square(mean), 0)


def _moments_around_sample(x: Tensor, count: Tensor, total: Sum) -> tuple[Tensor, ...]:
    """The same with the first row as the shift.

    It reads x once less, which under XLA outweighs the second subtraction.
    """
    shift = total(x[:1])
    rest = x - shift
    mean = total(rest) / tf.maximum(count, 1)
    deviation = tf.math.squared_difference(rest, mean)
    return rest, shift, mean, total(deviation) / tf.maximum(count, 1)


def _normalize_rest(
    rest: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor,
    beta: Tensor,
    epsilon: float,
) -> Tensor:
    """BN, Alg. 1, lines 3 and 4, as one multiply-add."""
    factor = gamma * tf.math.rsqrt(variance + epsilon)
    return rest * factor + (beta - mean * factor)


def _backward(
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
    """The chain rule of BN, section 3, collected; `total` sums over all samples.

    With factor = 1 / sqrt(variance + epsilon) and x_hat = (rest - mean) * factor,
    dx = gamma * factor * (dy - dbeta / m - x_hat * dgamma / m). A sample that the mask
    leaves out is normalized like the others, so its dy counts, but neither the mean
    nor the variance depends on it.
    """
    factor = tf.math.rsqrt(variance + epsilon)
    dbeta = total(dy)
    dgamma = (total(dy * rest) - mean * dbeta) * factor
    divisor = tf.maximum(count, 1)
    slope = dgamma * factor / divisor
    through_moments = rest * slope + (dbeta / divisor - mean * slope)
    if mask is not None:
        through_moments = tf.where(mask, through_moments, 0)
    return (dy - through_moments) * (gamma * factor), dgamma, dbeta


def _fused_forward(
    x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float, count: Tensor
) -> tuple[Tensor, ...]:
    """y, the mean as a sum of two, the variance, and what the backward pass needs."""

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
    return _if(is_large, lambda: run(x - mean, mean), lambda: results)


def _fused_backward(
    dy: Tensor, gamma: Tensor, epsilon: float, saved: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
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


def _sum_rows(values: Tensor) -> Tensor:
    """Sum over the first axis; in graphs this operation starts sooner than `Sum`."""
    return tf.raw_ops.BiasAddGrad(out_backprop=values)


def _transpose(x: Tensor, order: tuple[int, ...]) -> Tensor:
    return x if order == tuple(range(len(order))) else tf.transpose(x, order)


def _is_small(x: Tensor) -> bool:
    batch, *sizes = x.shape
    if None in sizes:
        return False
    return (UNKNOWN_BATCH if batch is None else batch) * math.prod(sizes) <= SMALL


def _is_under_xla() -> bool | Tensor:
    """Whether XLA compiles what is being traced, known when it is compiled.

    DeviceIndex is the index of the device that runs it, or the length of the list
    under XLA.
    """
    if tf.executing_eagerly():
        return False
    names = ["CPU", "GPU"]
    return tf.raw_ops.DeviceIndex(device_names=names) == len(names)


def _if(condition: bool | Tensor, yes: Callable[[], Any], no: Callable[[], Any]) -> Any:
    """`tf.cond`, decided while tracing where that can be."""
    if isinstance(condition, bool):
        return yes() if condition else no()
    return tf.cond(condition, yes, no)
