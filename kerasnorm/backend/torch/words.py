"""The random words of `functional.random_words` on a CPU, by NumPy.

PyTorch has no shifts of unsigned integers, and makes two operations of each. NumPy's
loops release Python's lock, so several threads draw at once.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

PART = 65_536
"""So many words are drawn at once. They stay in the processor's cache."""

Words = NDArray[np.uint32]


def drop_mask(units: int, threshold: int, seed: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the contrary of `functional.keep_mask`: which units are dropped."""
    keys = _keys(*seed)
    words = (units + 1) // 2
    dropped = np.empty(2 * words, np.bool_)

    def fill(first: int, last: int) -> None:
        positions = np.arange(first, last, dtype=np.uint32)
        halves = _random_words(positions, keys).view(np.uint16)  # the low half first
        np.less(halves, threshold, dropped[2 * first : 2 * last])

    _fill_in_parts(fill, words, PART)
    return dropped[:units]


def gaussian_noise(
    units: int, stddev: np.float32, seed: tuple[int, int]
) -> NDArray[np.float32]:
    """Return `functional.gaussian_noise`, flat."""
    keys = _keys(*seed)
    noise = np.empty(units, np.float32)

    def fill(first: int, last: int) -> None:
        even = np.arange(2 * first, 2 * last, 2, dtype=np.uint32)
        positions = np.stack([even, even + np.uint32(1)])
        radius, angle = _uniform(_random_words(positions, keys))
        np.log(radius, radius)
        radius *= np.float32(-2) * stddev**2
        np.sqrt(radius, radius)
        angle *= np.float32(2 * np.pi)
        radius *= np.cos(angle, angle)
        np.add(radius, 1, noise[first:last])

    _fill_in_parts(fill, units, PART // 2)
    return noise


def _fill_in_parts(fill: Callable[[int, int], None], number: int, part: int) -> None:
    """Call `fill` for each part of `number`, in as many threads as PyTorch takes."""
    starts = range(0, number, part)
    ends = [*starts[1:], number]
    threads = min(len(starts), torch.get_num_threads())
    if threads < 2:
        for first, last in zip(starts, ends, strict=False):
            fill(first, last)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(fill, starts, ends):  # an error is raised here
            pass


def _keys(seed: int, draws: int) -> tuple[int, int]:
    """Return both keys of `functional.random_words`."""
    key_0 = _mix_one(_mix_one(seed + 0x9E3779B9) ^ draws)
    key_1 = _mix_one(_mix_one(seed ^ 0x85EBCA6B) + draws)
    return key_0, key_1


def _random_words(positions: Words, keys: tuple[int, int]) -> Words:
    words = _mix(positions ^ np.uint32(keys[0]))
    words += positions
    words += np.uint32(keys[1])
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


def _mix_one(word: int) -> int:
    """Return the hash of a Python integer: `_mix` of its low 32 bits."""
    word &= 0xFFFFFFFF
    word = (word ^ word >> 16) * 0x7FEB352D & 0xFFFFFFFF
    word = (word ^ word >> 15) * 0x846CA68B & 0xFFFFFFFF
    return word ^ word >> 16


def _uniform(words: Words) -> NDArray[np.float32]:
    """Return float32 in (0, 1] from the high 24 bits of the words."""
    uniform = (words >> 8).view(np.int32).astype(np.float32)
    uniform += np.float32(0.5)
    uniform *= np.float32(2.0**-24)
    return uniform
