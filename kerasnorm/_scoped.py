"""Values that hold in a block of one thread."""

import contextlib
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Generic, TypeVar

T = TypeVar("T")


class Scoped(Generic[T]):
    """A value that another one replaces in a block, in this thread alone.

    Outside of all blocks no context variable is read, which `torch.compile` cannot
    trace.
    """

    def __init__(self, default: T) -> None:
        self._default = default
        self._value: ContextVar[T] = ContextVar("value", default=default)
        self._blocks = 0
        self._lock = threading.Lock()

    def get(self) -> T:
        """Return the value of the innermost block, or the default."""
        return self._value.get() if self._blocks else self._default

    @contextlib.contextmanager
    def holds(self, value: T) -> Iterator[None]:
        """Replace the value in the block."""
        token = self._value.set(value)
        with self._lock:
            self._blocks += 1
        try:
            yield
        finally:
            with self._lock:
                self._blocks -= 1
            self._value.reset(token)
