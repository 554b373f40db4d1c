"""The functions of `kerasnorm.backend` for TensorFlow."""

from kerasnorm.backend.tensorflow.normalization import (
    ROW,
    dropout,
    gaussian_dropout,
    normalize_batch,
    normalize_with,
    thinning,
)
from kerasnorm.backend.tensorflow.replicas import pool_replicas, replica_seed

__all__ = [
    "ROW",
    "dropout",
    "gaussian_dropout",
    "normalize_batch",
    "normalize_with",
    "pool_replicas",
    "replica_seed",
    "thinning",
]
