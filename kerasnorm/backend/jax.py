"""The functions of `kerasnorm.backend` for JAX."""

from kerasnorm.backend.generic import pool_replicas, replica_seed
from kerasnorm.functional import (
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
