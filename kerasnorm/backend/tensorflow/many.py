"""Batch normalization of many samples: the kernel that is the fastest and exact.

Where TensorFlow sees only when it runs how many samples there are or who compiles them,
it chooses then.
"""

import functools
from collections.abc import Callable

import tensorflow as tf

from kerasnorm import functional
from kerasnorm.backend.tensorflow.blocks import block_gradients, normalize_blocks
from kerasnorm.backend.tensorflow.chunks import chunk_gradients, normalize_chunks
from kerasnorm.backend.tensorflow.composed import (
    gradients,
    moments_around_mean,
    normalize_rest,
    sum_rows,
)
from kerasnorm.backend.tensorflow.fused import (
    MOST_ROWS,
    fused_gradients,
    is_exact,
    is_fast,
    normalize_fused,
)
from kerasnorm.backend.tensorflow.typed import cond, custom_gradient, is_under_xla
from kerasnorm.functional import Tensor

Tensors = tuple[Tensor, ...]

_MOST_TRACED = 128  # functions that are kept; that of another shape replaces the oldest


def normalize_many(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    epsilon: float,
    count: Tensor,
    are_few: bool | Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize (samples, features).

    Args:
        x, gamma, beta, epsilon: As in `functional.normalize`.
        count: The number of samples.
        are_few: Whether composed operations are the fastest.

    Returns:
        The outputs, the mean and the variance.
    """

    forward, backward = (_apart(f, epsilon, x) for f in (_forward, _backward))
    composed = functools.partial(_composed, epsilon=epsilon)
    under_xla = is_under_xla()  # outside, so that `tf.vectorized_map` sees one for all

    @custom_gradient
    def normalize(
        x: Tensor, gamma: Tensor, beta: Tensor
    ) -> tuple[Tensors, Callable[..., Tensors]]:
        # Else a tape takes the derivatives of all branches, and of those again.
        inputs = tuple(map(tf.stop_gradient, (x, gamma, beta)))
        y, shift, mean, variance, rest, is_fused = cond(
            are_few, lambda: composed(*inputs), lambda: forward(*inputs, under_xla)
        )

        def gradients_of(dy: Tensor, *_: Tensor) -> Tensors:
            upstream, factor = map(tf.stop_gradient, (dy, gamma))
            saved = upstream, rest, mean, variance, factor
            results = cond(
                are_few,
                lambda: gradients(*saved, epsilon, count, sum_rows),
                lambda: backward(*saved, shift, is_fused, under_xla),
            )
            return _differentiable(results, dy, x, gamma, epsilon, count)

        return (y, shift + mean, variance), gradients_of

    y, mean, variance = normalize(x, gamma, beta)
    return y, mean, variance


def _apart(
    function: Callable[..., Tensors], epsilon: float, x: Tensor
) -> Callable[..., Tensors]:
    """Return `function` of the tensors, traced once for all layers of a shape.

    Of a branch in the graph around it TensorFlow would go through all operations, also
    where it is not taken.
    """
    if tf.executing_eagerly():
        return functools.partial(function, epsilon=epsilon)
    return _traced(function, epsilon, *x.shape)


@functools.lru_cache(maxsize=_MOST_TRACED)
def _traced(
    function: Callable[..., Tensors], epsilon: float, rows: int | None, features: int
) -> Callable[..., Tensors]:
    """Return a `tf.function` for (rows, features), of which there is one for each."""
    traced: Callable[..., Tensors] = tf.function(
        functools.partial(function, epsilon=epsilon),
        autograph=False,
        experimental_attributes={"_noinline": True},
    )
    return traced


def _choose(
    rows: Tensor,
    under_xla: bool | Tensor,
    composed: Callable[[], Tensors],
    chunks: Callable[[], Tensors],
    fused: Callable[[], Tensors],
    blocks: Callable[[], Tensors],
) -> Tensors:
    """Call what is the fastest for `rows`, (samples, features)."""
    known = rows.shape[0]
    has_few_rows = (tf.shape(rows)[0] if known is None else known) <= MOST_ROWS
    is_one_sum = known is not None and known <= functional.BLOCK

    def many() -> Tensors:
        return cond(has_few_rows, fused, blocks) if is_fast() else blocks()

    return cond(under_xla, composed if is_one_sum else chunks, many)


def _forward(
    x: Tensor, gamma: Tensor, beta: Tensor, under_xla: bool | Tensor, epsilon: float
) -> Tensors:
    """Return y, the two tensors whose sum is the mean, and what `_backward` takes."""
    no = tf.constant(False)

    def composed() -> Tensors:
        return _composed(x, gamma, beta, epsilon)

    def chunks() -> Tensors:
        return *normalize_chunks(x, gamma, beta, epsilon), x, no

    def fused() -> Tensors:
        y, mean, variance = normalize_fused(x, gamma, beta, epsilon)
        results = y, tf.zeros_like(mean), mean, variance, x, tf.constant(True)
        return cond(is_exact(mean, variance, epsilon), lambda: results, composed)

    def blocks() -> Tensors:
        return *normalize_blocks(x, gamma, beta, epsilon), no

    return _choose(x, under_xla, composed, chunks, fused, blocks)


def _composed(x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> Tensors:
    """Return the results of `_forward` by composed operations."""
    rest, *moments = moments_around_mean(x, _count(x), sum_rows)
    _, mean, variance = moments
    y = normalize_rest(rest, mean, variance, gamma, beta, epsilon)
    return y, *moments, rest, tf.constant(False)


def _backward(
    dy: Tensor,
    rest: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor,
    shift: Tensor,
    is_fused: Tensor,
    under_xla: bool | Tensor,
    epsilon: float,
) -> Tensors:
    """Return dx, dgamma and dbeta."""
    arguments = dy, rest, mean, variance, gamma, epsilon

    def composed() -> Tensors:
        return gradients(*arguments, _count(dy), sum_rows)

    def chunks() -> Tensors:
        return chunk_gradients(dy, rest, shift, mean, variance, gamma, epsilon)

    def fused() -> Tensors:
        return cond(is_fused, lambda: fused_gradients(*arguments), composed)

    def blocks() -> Tensors:
        return block_gradients(*arguments)

    return _choose(rest, under_xla, composed, chunks, fused, blocks)


def _count(x: Tensor) -> Tensor:
    return tf.cast(tf.shape(x)[0], x.dtype)


def _differentiable(
    results: Tensors,
    dy: Tensor,
    x: Tensor,
    gamma: Tensor,
    epsilon: float,
    count: Tensor,
) -> Tensors:
    """Return dx, dgamma and dbeta, which composed operations differentiate again."""

    def total(values: Tensor) -> Tensor:
        return functional.total(values, (0,))

    def compose(dy: Tensor, x: Tensor, gamma: Tensor) -> Tensors:
        rest, _, mean, variance = moments_around_mean(x, count, total)
        return gradients(dy, rest, mean, variance, gamma, epsilon, count, total)

    @custom_gradient
    def first(
        dy: Tensor, x: Tensor, gamma: Tensor
    ) -> tuple[Tensors, Callable[..., Tensors]]:
        def second(*upstream: Tensor) -> Tensors:
            with tf.GradientTape() as tape:
                tape.watch([dy, x, gamma])
                outputs = compose(dy, x, gamma)
            found = tape.gradient(outputs, [dy, x, gamma], list(upstream))
            return tuple(found)

        return tuple(map(tf.identity, results)), second

    return first(dy, x, gamma)
