"""The functions of `kerasnorm.backend` for a backend that makes none of them faster.

The backend has no replicas: a batch is one array, however it is sharded.
"""

from kerasnorm.functional import (
    Moments,
    Tensor,
    dropout,
    gaussian_dropout,
    normalize_batch,
    normalize_with,
    thinning,
)

__all__ = [
    "dropout",
    "gaussian_dropout",
    "normalize_batch",
    "normalize_with",
    "pool_replicas",
    "replica_seed",
    "thinning",
]


def pool_replicas(batch: Moments) -> Moments:
    """Return `batch`, which is the batch of all replicas."""
    return batch


def replica_seed(seed: Tensor) -> Tensor:
    """Return `seed`, which one replica alone draws from."""
    return seed
