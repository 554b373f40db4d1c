"""The random words of `functional.random_words` on a CPU, by NumPy.

PyTorch has no shifts of unsigned integers, and makes two operations of each. NumPy's
loops release Python's lock, so several threads draw at once.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kerasnorm.functional import MASK_BITS

PART = 65_536
"""So many words are drawn at once. They stay in the processor's cache."""

Words = NDArray[np.uint32]
Draw = Callable[[Words], NDArray[Any]]


def keep_bits(units: int, threshold: int, seed: tuple[int, int]) -> NDArray[np.int8]:
    """Return all bits for each unit that `functional.keep_mask` keeps, else none."""

    def draw(words: Words) -> NDArray[np.int8]:
        kept = words.view(f"uint{MASK_BITS}") >= threshold  # the low half first
        return np.negative(kept.view(np.int8))

    return _draw(draw, np.empty(units + units % 2, np.int8), 2, seed)[:units]


def normal(units: int, seed: tuple[int, int]) -> NDArray[np.float32]:
    """Return the normal deviates of `functional.gaussian_noise`."""

    def draw(words: Words) -> NDArray[np.float32]:
        uniform = (words >> 8).astype(np.float32)
        uniform += np.float32(0.5)
        uniform *= np.float32(2.0**-24)
        radius = np.log(uniform[::2])
        radius *= np.float32(-2)
        angle = uniform[1::2] * np.float32(2 * np.pi)
        return np.multiply(np.sqrt(radius, radius), np.cos(angle, angle), radius)

    return _draw(draw, np.empty(units, np.float32), 0.5, seed)


def _draw(
    draw: Draw, units: NDArray[Any], units_of_a_word: float, seed: tuple[int, int]
) -> NDArray[Any]:
    """Fill `units` with what `draw` makes of the words, a part of them at a time."""
    keys = _keys(*seed)
    number = int(len(units) / units_of_a_word)

    def fill(first: int) -> None:
        last = min(first + PART, number)
        part = slice(int(first * units_of_a_word), int(last * units_of_a_word))
        units[part] = draw(_random_words(first, last, keys))

    parts = range(0, number, PART)
    threads = min(len(parts), torch.get_num_threads())
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, parts))
    else:
        for first in parts:
            fill(first)
    return units


def _keys(seed: int, draws: int) -> tuple[np.uint32, np.uint32]:
    """Return both keys of `functional.random_words`."""
    first, second = (np.array([n % 2**32], np.uint32) for n in (seed, draws))
    key_0 = _mix(_mix(first + np.uint32(0x9E3779B9)) ^ second)
    key_1 = _mix(_mix(first ^ np.uint32(0x85EBCA6B)) + second)
    return key_0[0], key_1[0]


def _random_words(first: int, last: int, keys: tuple[np.uint32, np.uint32]) -> Words:
    positions = np.arange(first, last, dtype=np.uint32)
    words = _mix(positions ^ keys[0])
    words += positions
    words += keys[1]
    return _mix(words)


def _mix(words: Words) -> Words:
    """Hash each word in its place: "lowbias32"."""
    shifted = words >> 16
    words ^= shifted
    words *= np.uint32(0x7FEB352D)
    words ^= np.right_shift(words, 15, shifted)
    words *= np.uint32(0x846CA68B)
    words ^= np.right_shift(words, 16, shifted)
    return words
