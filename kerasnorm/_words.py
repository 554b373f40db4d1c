"""Arithmetic of 32-bit words, held as int32: all backends can hash in that."""

from typing import Any

from keras import ops

Words = Any
"""An int32 tensor."""


def int32(word: int) -> int:
    """Return the int32 of the same 32 bits."""
    return word - 2**32 if word >= 2**31 else word


def mix(words: Words) -> Words:
    """Hash each word by itself: "lowbias32" (C. Wellons, 2018)."""
    words = ops.bitwise_xor(words, shift_right(words, 16)) * int32(0x7FEB352D)
    words = ops.bitwise_xor(words, shift_right(words, 15)) * int32(0x846CA68B)
    return ops.bitwise_xor(words, shift_right(words, 16))


def uniform(words: Words) -> Any:
    """Return float32 in (0, 1] from the high 24 bits of random words."""
    return (ops.cast(shift_right(words, 8), "float32") + 0.5) / 2**24


def shift_right(words: Words, bits: int) -> Words:
    """Shift in zeros from the left, as for an unsigned integer."""
    return ops.bitwise_and(ops.right_shift(words, bits), 2 ** (32 - bits) - 1)
