"""Batch normalization over replicas."""

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
    """Normalize the batches of all replicas as one: `functional.normalize_batch`."""
    batch = backend.pool_replicas(functional.moments(x, axes, mask))
    y = functional.normalize_with(
        x, axes, batch.mean, batch.variance, gamma, beta, epsilon
    )
    return y, batch
