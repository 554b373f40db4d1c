"""The functions of `kerasnorm.backend` for JAX."""

from kerasnorm.backend.generic import (
    dropout,
    gaussian_dropout,
    is_second_pass,
    next_seed,
    normalize_batch,
    normalize_with,
    on_known_rank,
    pool_replicas,
    replica_seed,
    thinning,
)

__all__ = [
    "dropout",
    "gaussian_dropout",
    "is_second_pass",
    "next_seed",
    "normalize_batch",
    "normalize_with",
    "on_known_rank",
    "pool_replicas",
    "replica_seed",
    "thinning",
]
