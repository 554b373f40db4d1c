"""Replicas, of which only TensorFlow's backend has any.

Under `keras.distribution`, on JAX, a batch is one array however it is sharded.
"""

import keras

from kerasnorm import functional
from kerasnorm.functional import Moments, Tensor

if keras.backend.backend() == "tensorflow":
    from kerasnorm.backend.tensorflow.replicas import pool_replicas, replica_seed
else:

    def pool_replicas(batch: Moments) -> Moments:
        """Return `batch`."""
        return batch

    def replica_seed(seed: Tensor) -> Tensor:
        """Return `seed`."""
        return seed


def normalize_over_replicas(
    x: Tensor,
    axes: tuple[int, ...],
    gamma: Tensor | None,
    beta: Tensor | None,
    epsilon: float,
    mask: Tensor | None = None,
) -> tuple[Tensor, Moments]:
    """`functional.normalize_batch` for the batches of all replicas as one batch."""
    batch = pool_replicas(functional.moments(x, axes, mask))
    y = functional.normalize_with(
        x, axes, batch.mean, batch.variance, gamma, beta, epsilon
    )
    return y, batch
