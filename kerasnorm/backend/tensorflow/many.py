"""Batch normalization of many samples: the kernel that is the fastest and exact.

Where TensorFlow sees only when it runs how many samples there are or who compiles them,
it chooses then.
"""

from collections.abc import Callable, Sequence

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
from kerasnorm.backend.tensorflow.typed import (
    apart,
    cond,
    custom_gradient,
    is_under_xla,
)
from kerasnorm.functional import Tensor

Tensors = tuple[Tensor, ...]


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
    known = x.shape[0]
    has_few_rows = (tf.shape(x)[0] if known is None else known) <= MOST_ROWS
    is_one_sum = known is not None and known <= functional.BLOCK

    def choose(
        composed: Callable[[], Tensors],
        chunks: Callable[[], Tensors],
        fused: Callable[[], Tensors],
        blocks: Callable[[], Tensors],
    ) -> Tensors:
        def many() -> Tensors:
            return cond(has_few_rows, fused, blocks) if is_fast() else blocks()

        def not_few() -> Tensors:
            return cond(is_under_xla(), composed if is_one_sum else chunks, many)

        if not isinstance(are_few, bool):
            not_few = apart(not_few)
        return cond(are_few, composed, not_few)

    def forward(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensors:
        """Return y, the two tensors whose sum is the mean, and the rest of `saved`."""
        no = tf.constant(False)

        def composed() -> Tensors:
            rest, *moments = moments_around_mean(x, count, sum_rows)
            _, mean, variance = moments
            y = normalize_rest(rest, mean, variance, gamma, beta, epsilon)
            return y, *moments, rest, no

        def chunks() -> Tensors:
            return *normalize_chunks(x, gamma, beta, epsilon), x, no

        def fused() -> Tensors:
            y, mean, variance = normalize_fused(x, gamma, beta, epsilon)
            results = y, tf.zeros_like(mean), mean, variance, x, tf.constant(True)
            return cond(is_exact(mean, variance, epsilon), lambda: results, composed)

        def blocks() -> Tensors:
            return *normalize_blocks(x, gamma, beta, epsilon), no

        return choose(composed, chunks, fused, blocks)

    def backward(dy: Tensor, gamma: Tensor, saved: Sequence[Tensor]) -> Tensors:
        """Return dx, dgamma and dbeta."""
        shift, mean, variance, rest, is_fused = saved
        arguments = dy, rest, mean, variance, gamma, epsilon

        def composed() -> Tensors:
            return gradients(*arguments, count, sum_rows)

        def chunks() -> Tensors:
            return chunk_gradients(dy, rest, shift, mean, variance, gamma, epsilon)

        def fused() -> Tensors:
            return cond(is_fused, lambda: fused_gradients(*arguments), composed)

        def blocks() -> Tensors:
            return block_gradients(*arguments)

        return choose(composed, chunks, fused, blocks)

    @custom_gradient
    def normalize(
        x: Tensor, gamma: Tensor, beta: Tensor
    ) -> tuple[Tensors, Callable[..., Tensors]]:
        # Else a tape takes the derivatives of all branches, and of those again.
        y, *saved = forward(*map(tf.stop_gradient, (x, gamma, beta)))
        shift, mean, variance, *_ = saved

        def gradients_of(dy: Tensor, *_: Tensor) -> Tensors:
            results = backward(tf.stop_gradient(dy), tf.stop_gradient(gamma), saved)
            return _differentiable(results, dy, x, gamma, epsilon, count)

        return (y, shift + mean, variance), gradients_of

    y, mean, variance = normalize(x, gamma, beta)
    return y, mean, variance


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
