"""Inputs that the tests of the library share."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tests.oracle import Array


def uneven(
    shape: Sequence[int], seed: int = 0, location: float = 0.0, dtype: str = "float64"
) -> Array:
    """Return noise whose mean and spread differ at each index behind the first axis.

    The standard deviations are between 1 and 4, and the means 1.5 times as large, plus
    `location`: nothing is constant, centred or alike.
    """
    noise = np.random.default_rng(seed).normal(3, 2, shape)
    scale = np.random.default_rng(99).uniform(0.5, 2, tuple(shape[1:]))
    x: Array = (location + scale * noise).astype(dtype)
    return x


def random_mask(shape: Sequence[int], seed: int = 5) -> NDArray[np.bool_]:
    """Return a mask that lets 7 of 10 elements through."""
    return np.random.default_rng(seed).random(tuple(shape)) < 0.7


def reduction_axes(rank: int, axis: int | tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes of inputs of `rank` that a layer with `axis` reduces."""
    kept = {a % rank for a in (axis if isinstance(axis, tuple) else (axis,))}
    return tuple(a for a in range(rank) if a not in kept)
