"""The functions of `kerasnorm.backend` for JAX."""

from kerasnorm.backend.generic import (
    dropout,
    gaussian_dropout,
    normalize_batch,
    normalize_with,
    pool_replicas,
    replica_seed,
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
