"""The functions that decide the speed, and what replicas share, for Keras's backend.

Each backend has the same functions. It takes those that it does not make faster from
`kerasnorm.functional`. Only the backend that Keras uses is imported.
"""

import keras

from kerasnorm._requirements import check_version

check_version(keras.backend.backend())

if keras.backend.backend() == "tensorflow":
    from kerasnorm.backend.tensorflow import (
        dropout,
        gaussian_dropout,
        is_second_pass,
        next_seed,
        normalize_batch,
        normalize_with,
        on_known_rank,
        pool_replicas,
        remat,
        replica_seed,
        thinning,
    )
elif keras.backend.backend() == "jax":
    from kerasnorm.backend.jax import (
        dropout,
        gaussian_dropout,
        is_second_pass,
        next_seed,
        normalize_batch,
        normalize_with,
        on_known_rank,
        pool_replicas,
        remat,
        replica_seed,
        thinning,
    )
elif keras.backend.backend() == "torch":
    from kerasnorm.backend.torch import (
        dropout,
        gaussian_dropout,
        is_second_pass,
        next_seed,
        normalize_batch,
        normalize_with,
        on_known_rank,
        pool_replicas,
        remat,
        replica_seed,
        thinning,
    )
else:
    from kerasnorm.backend.generic import (
        dropout,
        gaussian_dropout,
        is_second_pass,
        next_seed,
        normalize_batch,
        normalize_with,
        on_known_rank,
        pool_replicas,
        remat,
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
    "remat",
    "replica_seed",
    "thinning",
]
