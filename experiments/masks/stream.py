"""The mask generator's words as a raw stream, for test batteries that read one.

    python -m experiments.masks.stream positions | dieharder -a -g 200

`words` is `kerasnorm.functional.random_words` in NumPy, for many keys at once.
"""

import argparse
import os
import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]

CHUNK = 2**15
"""Words made at a time: few enough to stay in the processor's cache."""

SEED = 20261123
"""The seed of the streams in which another part of the key varies."""

STREAMS = ("positions", "counts", "seeds", "replicas")


def words(positions: Words, seed: Words, count: Words) -> Words:
    """Return the random word at each position, for each seed and count of draws.

    The three arguments broadcast. Arithmetic is modulo 2**32.
    """
    key_0, key_1 = keys(seed, count)
    return mix(mix(positions ^ key_0) + positions + key_1)


def keys(seed: Words, count: Words) -> tuple[Words, Words]:
    """Return the two hashes of (seed, count) that `words` mixes with the position."""
    key_0 = mix(mix(seed + np.uint32(0x9E3779B9)) ^ count)
    key_1 = mix(mix(seed ^ np.uint32(0x85EBCA6B)) + count)
    return key_0, key_1


def mix(h: Words) -> Words:
    """Apply the finalizer "lowbias32"."""
    h = h ^ (h >> np.uint32(16))
    h *= np.uint32(0x7FEB352D)
    h ^= h >> 15
    h *= np.uint32(0x846CA68B)
    h ^= h >> 16
    return h


def replica_seed(seed: Words, replica: Words) -> Words:
    """Return a seed for each replica: a hash of (seed, replica)."""
    return words(np.zeros(1, np.uint32), seed, replica)


def stream(kind: str, size: int) -> Iterator[Words]:
    """Yield chunks of one of `STREAMS`.

    Args:
        kind: What varies from one draw to the next. "positions" takes all 2**32 words
            of a key before the next key. "replicas" takes 8 replicas in turn.
        size: The words taken of each draw, a power of two. "positions" ignores it.
    """
    if kind == "positions":
        seed = np.array([SEED], np.uint32)
        for count in range(2**32):
            for start in range(0, 2**32, CHUNK):
                yield words(span(start, CHUNK), seed, span(count, 1))
    draws = max(1, CHUNK // size)
    for first in range(0, 2**32, draws):
        index = span(first, draws)[:, None]
        fixed = np.full_like(index, SEED)
        if kind == "counts":
            yield words(span(0, size), fixed, index)
        elif kind == "seeds":
            yield words(span(0, size), index, np.zeros_like(index))
        else:
            yield words(span(0, size), replica_seed(fixed, index % 8), index // 8)


def span(start: int, size: int) -> Words:
    """Return the positions from `start` on, modulo 2**32."""
    return np.arange(start, start + size, dtype=np.int64).astype(np.uint32)


def main() -> None:
    """Write words to standard output until the reader has enough."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kind", choices=STREAMS, help="what varies between draws")
    parser.add_argument("--words", type=int, default=4096, help="words of each draw")
    options = parser.parse_args()
    try:
        for chunk in stream(options.kind, options.words):
            sys.stdout.buffer.write(chunk.tobytes())
    except BrokenPipeError:  # the battery has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
