"""The functions of `kerasnorm.backend` for TensorFlow.

They give the results of `kerasnorm.functional` with fewer passes over memory,
eagerly, in graphs and under XLA.
"""

from kerasnorm.backend.tensorflow.noise import dropout, gaussian_dropout, thinning
from kerasnorm.backend.tensorflow.normalization import normalize_batch, normalize_with
from kerasnorm.backend.tensorflow.ranks import on_known_rank
from kerasnorm.backend.tensorflow.replicas import pool_replicas, replica_seed
from kerasnorm.backend.tensorflow.second_pass import is_second_pass, remat
from kerasnorm.backend.tensorflow.state import next_seed

__all__ = [
    "dropout",
    "gaussian_dropout",
    "is_second_pass",
    "next_seed",
    "normalize_batch",
    "normalize_with",
    "on_known_rank",
    "pool_replicas",
    "remat",
    "replica_seed",
    "thinning",
]
