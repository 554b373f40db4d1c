"""The functions of `kerasnorm.backend` for a backend that makes none of them faster.

The backend has no replicas: a batch is one array, however it is sharded.
"""

import inspect
import threading
from collections.abc import Callable
from typing import Any

import keras

from kerasnorm.functional import (
    Moments,
    Tensor,
    dropout,
    gaussian_dropout,
    normalize_batch,
    normalize_with,
    thinning,
)

ONE_AT_A_TIME = threading.Lock()
"""Held while random state is read and advanced."""

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


def is_second_pass() -> bool:
    """Return whether a function is called again for its gradient: it is not."""
    return False


def next_seed(generator: keras.random.SeedGenerator) -> Tensor:
    """Return the random state of a layer, and advance it; in one thread at a time."""
    with ONE_AT_A_TIME:
        return generator.next()


def on_known_rank(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return `function(x)`: every tensor has a known rank."""
    return function(x)


def pool_replicas(batch: Moments) -> Moments:
    """Return `batch`, which is the batch of all replicas."""
    return batch


def remat(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function`: there is no backward pass to compute it again in."""
    return function


def replica_seed(seed: Tensor) -> Tensor:
    """Return `seed`, which one replica alone draws from."""
    return seed


def is_called_by(functions: set[tuple[str, str]]) -> bool:
    """Return whether one of the functions, by module and name, is being run.

    They are those that call another function again for its gradient.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) in functions:
            return True
        frame = frame.f_back
    return False
