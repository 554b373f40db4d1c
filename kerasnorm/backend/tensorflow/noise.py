"""Dropout for TensorFlow: noise by one compiled loop, in every mode."""

import functools
import math
from collections.abc import Callable

import tensorflow as tf

from kerasnorm import functional
from kerasnorm.backend.tensorflow.typed import custom_gradient
from kerasnorm.functional import Shape, Tensor

SMALL = 100_000
"""Up to this many elements the noise is stored: to start a compiled function once more
takes longer than to read it."""

ROW = 8
"""Elements of a row in which noise is drawn. XLA's code for loops over rows as short as
this takes 0.5 to 0.9 of the time of that for long ones."""

_MOST_COMPILED = 64  # functions that are kept; another rate's replaces the oldest


def dropout(
    x: Tensor,
    rate: float | Tensor,
    seed: Tensor,
    noise_shape: Shape | None = None,
) -> Tensor:
    """Apply `functional.dropout`, compiled."""
    return _multiply_by_noise(functional.dropout, x, rate, seed, noise_shape)


def thinning(
    x: Tensor,
    rate: float | Tensor,
    seed: Tensor,
    noise_shape: Shape | None = None,
) -> Tensor:
    """Apply `functional.thinning`, compiled."""
    return _multiply_by_noise(functional.thinning, x, rate, seed, noise_shape)


def gaussian_dropout(x: Tensor, rate: float | Tensor, seed: Tensor) -> Tensor:
    """Apply `functional.gaussian_dropout`, compiled."""
    return _multiply_by_noise(functional.gaussian_dropout, x, rate, seed)


def _multiply_by_noise(
    function: Callable[..., Tensor],
    x: Tensor,
    rate: float | Tensor,
    seed: Tensor,
    noise_shape: Shape | None = None,
) -> Tensor:
    """Return y = r * x, with r drawn by a function that XLA compiles.

    y is linear in x, so the backward pass is the same function of dy. It draws the same
    noise again, which takes less time than to store and to read it. For few elements
    the start of a compiled function costs more than the noise. There r = `function`(1)
    is drawn once. It waits for nothing but the seed, so it is drawn while the layers
    before are computing.
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

    @custom_gradient
    def multiply(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        # For the backward pass, captured before the compiled call: if a branch of
        # `tf.cond` captured them in that call, TensorFlow would take the branch for one
        # that XLA compiles.
        captured = [tf.identity(argument) for argument in arguments]
        y = tf.ensure_shape(apply(x, *captured), x.shape)
        return y, multiply

    return multiply(x)


@functools.lru_cache(maxsize=_MOST_COMPILED)
def _compile(
    function: Callable[..., Tensor],
    rate: float | None,
    noise_shape: Shape | None,
    rank: int,
) -> Callable[..., Tensor]:
    """Return `function` of x and the seed, compiled; of the rate too, if it is `None`.

    There is one for each rate and rank. As arguments of one function the rate and rank
    of each new layer would count as a retracing.
    """
    shape = {} if noise_shape is None else {"noise_shape": noise_shape}

    def multiply(x: Tensor, seed: Tensor, rate: float | Tensor = rate) -> Tensor:
        return function(x, rate, seed, **shape)

    compiled: Callable[..., Tensor] = tf.function(
        multiply, jit_compile=True, autograph=False, reduce_retracing=True
    )
    return compiled
