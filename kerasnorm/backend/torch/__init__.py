"""The functions of `kerasnorm.backend` for PyTorch.

They give the results of `kerasnorm.functional` with fewer passes over memory.
"""

from kerasnorm.backend.generic import (
    on_known_rank,
    pool_replicas,
    replica_seed,
)
from kerasnorm.backend.torch.noise import dropout, gaussian_dropout, thinning
from kerasnorm.backend.torch.normalization import normalize_batch, normalize_with
from kerasnorm.backend.torch.second_pass import is_second_pass, remat
from kerasnorm.backend.torch.state import next_seed

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
