"""The random words of `functional.random_words` on a CPU, by NumPy.

PyTorch has no shifts of unsigned integers, and makes two operations of each. NumPy's
loops release Python's lock, so several threads draw at once.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

PART = 65_536
"""So many words are drawn at once. They stay in the processor's cache.

It is a power of two, so the positions of a part have the same high 16 bits.
"""

Words = NDArray[np.uint32]

# As an array a number is not converted again at each use. That would take as long as to
# hash a few hundred words.
_FACTORS = np.array(0x7FEB352D, np.uint32), np.array(0x846CA68B, np.uint32)
_SHIFTS = {bits: np.array(bits, np.uint32) for bits in (8, 15, 16)}
_HALF = np.array(0.5, np.float32)
_UNITS = np.array([[2.0**-24], [2.0**-24 * 2 * np.pi]], np.float32)
"""What 24 bits are multiplied by to be in (0, 1], or an angle."""


def drop_mask(units: int, threshold: int, seed: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the contrary of `functional.keep_mask`: which units are dropped."""
    keys = _keys(*seed)
    words = (units + 1) // 2
    dropped = np.empty(2 * words, np.bool_)

    def fill(first: int, last: int) -> None:
        drawn = _random_words(_offsets(last - first), first, keys)
        halves = drawn.view(np.uint16)  # the low half first
        np.less(halves, threshold, dropped[2 * first : 2 * last])

    _fill_in_parts(fill, words, PART)
    return dropped[:units]


def gaussian_noise(
    units: int, variance: float, seed: tuple[int, int]
) -> NDArray[np.float32]:
    """Return `functional.gaussian_noise`, flat."""
    keys = _keys(*seed)
    noise = np.empty(units, np.float32)

    def fill(first: int, last: int) -> None:
        words = _random_words(_pairs(last - first), 2 * first, keys)
        words >>= _SHIFTS[8]
        uniform = words.view(np.int32).astype(np.float32)
        uniform += _HALF
        uniform *= _UNITS
        radius, angle = uniform
        np.log(radius, radius)
        radius *= -2 * variance
        np.sqrt(radius, radius)
        radius *= np.cos(angle, angle)
        np.add(radius, 1, noise[first:last])

    _fill_in_parts(fill, units, PART // 2)
    return noise


@functools.lru_cache(maxsize=16)
def _offsets(number: int) -> Words:
    """Return the positions in a part."""
    return np.arange(number, dtype=np.uint32)


@functools.lru_cache(maxsize=16)
def _pairs(number: int) -> Words:
    """Return the positions in a part: the even ones, and the odd ones."""
    return np.arange(2 * number, dtype=np.uint32).reshape(-1, 2).T.copy()


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


def _random_words(offsets: Words, first: int, keys: tuple[int, int]) -> Words:
    """Return the words at positions of a part, which starts at `first`."""
    start = first ^ keys[0]
    words = offsets ^ np.uint32(start ^ start >> 16)  # the first line of `_mix_one`
    _mix_shifted(words)
    words += offsets
    words += np.uint32(first + keys[1] & 0xFFFFFFFF)
    words ^= words >> _SHIFTS[16]
    return _mix_shifted(words)


def _mix_shifted(words: Words) -> Words:
    """Hash each word in its place, as `_mix_one` does after its first shift."""
    words *= _FACTORS[0]
    shifted = words >> _SHIFTS[15]
    words ^= shifted
    words *= _FACTORS[1]
    words ^= np.right_shift(words, _SHIFTS[16], shifted)
    return words


def _mix_one(word: int) -> int:
    """Return the hash of the low 32 bits of an integer: "lowbias32"."""
    word &= 0xFFFFFFFF
    word ^= word >> 16
    word = word * 0x7FEB352D & 0xFFFFFFFF
    word = (word ^ word >> 15) * 0x846CA68B & 0xFFFFFFFF
    return word ^ word >> 16
