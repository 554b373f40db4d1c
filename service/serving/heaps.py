"""The heaps of the C library, which keep what requests have freed.

GNU's library gives each thread one of several heaps. What was freed in one is of no use
to a thread with another. At the end of each heap but the first, up to 64 MiB stay that
`malloc_trim` does not give back. So the number of heaps bounds what is kept. Without a
limit there are 8 for each core.
"""

import ctypes
import os
import threading

_M_ARENA_MAX = -8
_AT_THE_END = 64 * 2**20
_BETWEEN_TRIMS = 64 * 2**20
_library = ctypes.CDLL(None)
_limit = getattr(_library, "mallopt", None)
_trim = getattr(_library, "malloc_trim", None)

# TensorFlow has made a second one before it can be limited.
NUMBER = max(2, len(os.sched_getaffinity(0)))
"""The number of heaps: one for each core, and two at least."""

MOST_KEPT = (NUMBER - 1) * _AT_THE_END + _BETWEEN_TRIMS
"""The most bytes that the heaps keep of what requests have freed."""


def limit() -> None:
    """Limit the number of heaps. Threads that have more of them already keep them."""
    if _limit is not None:
        _limit(_M_ARENA_MAX, NUMBER)


class Trimmer:
    """Has the heaps give back what they keep, before it is too much."""

    def __init__(self) -> None:
        self._freed = 0
        self._lock = threading.Lock()

    def freed(self, size: int) -> None:
        """Say that a request has freed this many bytes."""
        with self._lock:
            self._freed += size
            is_much = self._freed > _BETWEEN_TRIMS
            if is_much:
                self._freed = 0
        if is_much and _trim is not None:
            _trim(0)
