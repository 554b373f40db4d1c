"""Room in memory for what the bodies of all requests become."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from service.serving.errors import exhausted, late, too_large
from service.serving.heaps import Trimmer


class Room:
    """A sum of bytes that is never more than `most`.

    Whoever needs memory takes room for it first. What decoding will need is an upper
    bound, known before anything is decoded.

    Args:
        most: The largest sum of bytes.

    Attributes:
        taken: The bytes that are taken.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0
        self._changed = threading.Condition()
        self._trimmer = Trimmer()

    def take(self, size: int) -> None:
        """Take room that is there now.

        Raises:
            tf.errors.ResourceExhaustedError: If there is none.
        """
        with self._changed:
            if self.taken + size > self.most:
                raise exhausted("Too many bytes are waiting. Try again later.")
            self.taken += size

    def give(self, size: int) -> None:
        """Give room back."""
        with self._changed:
            self.taken -= size
            self._changed.notify_all()

    @contextmanager
    def keep(self, size: int) -> Iterator[None]:
        """Take room that is there now, and give it back at the end.

        Raises:
            tf.errors.ResourceExhaustedError: If there is none.
        """
        self.take(size)
        try:
            yield
        finally:
            self.give(size)

    def wait(self, size: int, deadline: float) -> None:
        """Take room as soon as there is some.

        Args:
            size: The number of bytes.
            deadline: The time, by `time.monotonic()`, until which to wait.

        Raises:
            tf.errors.ResourceExhaustedError: If it is more than there ever is.
            tf.errors.DeadlineExceededError: If others keep the room too long.
        """
        if size > self.most:
            raise too_large(
                f"A request may take {self.most} bytes of memory when it is decoded. "
                f"This one may need {size}."
            )
        with self._changed:
            while self.taken + size > self.most:
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    raise late("Timed out while waiting for the memory of others.")
            self.taken += size

    @contextmanager
    def hold(self, deadline: float, body: int = 0) -> Iterator["Hold"]:
        """Give a request's share of the room, which is empty at first.

        Args:
            deadline: The time, by `time.monotonic()`, after which nobody waits for the
                request.
            body: The bytes that the body takes beside the room.
        """
        held = Hold(self, deadline)
        try:
            yield held
        finally:
            held.change(0)
            self._trimmer.freed(body + held.largest)


class Hold:
    """The share that one request has of the room.

    Attributes:
        most: The bytes of the whole room.
        largest: The most bytes that it has been.
        deadline: The time, by `time.monotonic()`, after which nobody waits for the
            request.
    """

    def __init__(self, room: Room, deadline: float) -> None:
        self.most = room.most
        self.deadline = deadline
        self._room = room
        self.largest = 0
        self._size = 0

    @property
    def seconds_left(self) -> float:
        """The seconds until the deadline; 0 after it."""
        return max(0.0, self.deadline - time.monotonic())

    def change(self, size: int) -> None:
        """Hold this many bytes from now on. What was held before must be free.

        So nobody waits for room and has some, and no two wait for each other.

        Raises:
            tf.errors.OpError: If there is no room.
        """
        kept = size if size <= self._size else 0
        self._room.give(self._size - kept)
        self._size = kept
        if size > kept:
            self._room.wait(size, self.deadline)
            self._size = size
        self.largest = max(self.largest, size)

    def grow(self, size: int) -> None:
        """Hold this many bytes more, if there is room for them now.

        Raises:
            tf.errors.ResourceExhaustedError: If there is none.
        """
        self._room.take(size)
        self._size += size
        self.largest = max(self.largest, self._size)
