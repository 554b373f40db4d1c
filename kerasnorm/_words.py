"""Arithmetic of 32-bit words, held as int32: all backends can hash in that."""

from contextlib import AbstractContextManager
from typing import Any

from keras import ops

from kerasnorm._scoped import Scoped

Words = Any
"""An int32 tensor."""

_ARITHMETIC: Scoped[bool] = Scoped(False)
"""What `arithmetic_is` says, in this thread."""


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
    return low_bits(_halve(words, bits), 32 - bits)


def low_bits(words: Words, bits: int) -> Words:
    """Return the lowest bits, at most 31, and zeros for the others."""
    if _ARITHMETIC.get():
        return words - _halve(words, bits) * int32(2**bits)
    return ops.bitwise_and(words, 2**bits - 1)


def _halve(words: Words, times: int) -> Words:
    """Shift to the right and keep the sign: halve so often, rounding down."""
    if not _ARITHMETIC.get():
        return ops.right_shift(words, times)
    if times == 31:  # 2**31 is no int32
        return _halve(_halve(words, 30), 1)
    return ops.floor_divide(words, 2**times)


def arithmetic_is(value: bool) -> AbstractContextManager[None]:
    """Let `low_bits` do without a bitwise and in the block, as LiteRT has to.

    The words stay the same. It takes longer on the backends.
    """
    return _ARITHMETIC.holds(value)
