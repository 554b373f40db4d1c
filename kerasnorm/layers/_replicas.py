"""Batch normalization over replicas."""

from keras import ops

from kerasnorm import backend, functional
from kerasnorm.functional import Moments, Tensor


def normalize_over_replicas(
    x: Tensor,
    axes: tuple[int, ...],
    gamma: Tensor | None,
    beta: Tensor | None,
    epsilon: float,
    mask: Tensor | None = None,
) -> tuple[Tensor, Moments]:
    """Normalize the batches of all replicas as one: `functional.normalize_batch`.

    A replica's mean is a shift and the rest's mean. In float32 their sum would cost
    the digits that x and the mean share, so the replicas pool it in float64.
    """
    rest, shift, own = functional.moments_around_shift(functional.widen(x), axes, mask)
    wide_shift = ops.cast(shift, "float64")
    count, mean, variance = (ops.cast(moment, "float64") for moment in own)
    batch = backend.pool_replicas(Moments(count, wide_shift + mean, variance))
    y = functional.normalize_with(
        rest, axes, batch.mean - wide_shift, batch.variance, gamma, beta, epsilon
    )
    batch = Moments(*(ops.cast(moment, rest.dtype) for moment in batch))
    return ops.cast(y, x.dtype), batch
