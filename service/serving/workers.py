"""The threads that answer requests, and the limits on what they are given."""

import asyncio
import functools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from service.serving.config import ServingConfig
from service.serving.errors import answered, exhausted, late, too_large
from service.serving.packed import unpack
from service.serving.room import Hold, Room

_GRACE = 1.0  # seconds that TensorFlow gets to notice that time has run out

Work = Callable[[bytes, Hold], bytes]
"""Makes an answer of a body, with room that it holds until a deadline."""


class Workers:
    """Threads for a limited number of requests, and room for a limited sum of bytes.

    Args:
        config: The limits.

    Attributes:
        under_way: Requests that wait for a thread or have one.
        bodies: Room for all bodies that are arriving or under way, packed and not.
        room: Room for what bodies become.
        answers: Room for the large answers that clients have not read yet.
    """

    def __init__(self, config: ServingConfig) -> None:
        self.under_way = 0
        self.bodies = Room(config.max_pending_bytes)
        self.room = Room(config.max_decoded_bytes)
        self.answers = Room(config.max_pending_bytes)
        self._config = config
        self._threads = ThreadPoolExecutor(config.threads, "predict")

    def stop(self) -> None:
        """Finish what has begun."""
        self._threads.shutdown()

    async def read_body(self, request: Request) -> bytes:
        """Return the whole body, which keeps its room until `run` has ended.

        Raises:
            HTTPException: If the body is too slow, or the client leaves.
            tf.errors.ResourceExhaustedError: If the body is too long, or there is no
                room.
        """
        chunks: list[bytes] = []
        length = 0
        try:
            async with asyncio.timeout(self._config.timeout):
                async for chunk in request.stream():
                    if length + len(chunk) > self._config.max_body_bytes:
                        raise too_large(
                            f"A body has at most {self._config.max_body_bytes} bytes."
                        )
                    self.bodies.take(len(chunk))
                    chunks.append(chunk)
                    length += len(chunk)
        except BaseException as error:
            self.bodies.give(length)
            match error:
                case TimeoutError():
                    raise HTTPException(
                        408, "The body took too long to arrive."
                    ) from None
                case ClientDisconnect():
                    raise HTTPException(499, "The client has gone.") from None
            raise
        return b"".join(chunks)

    async def run(self, work: Work, body: bytes, is_packed: bool) -> bytes:
        """Run a method in a thread.

        Args:
            work: The method.
            body: What `read_body` has returned.
            is_packed: Whether the body is packed by gzip.

        Raises:
            tf.errors.OpError: If there is no room, time runs out, or the method fails.
        """
        if self.under_way >= self._config.max_queue:
            self.bodies.give(len(body))
            raise exhausted(
                f"{self.under_way} requests are under way. Try again later."
            )
        self.under_way += 1
        deadline = time.monotonic() + self._config.timeout
        task = functools.partial(self._work, work, body, is_packed, deadline)
        future = asyncio.wrap_future(self._threads.submit(task))
        future.add_done_callback(functools.partial(self._finish, len(body)))
        await asyncio.wait([future], timeout=self._config.timeout + _GRACE)
        if not future.done():
            raise late("Timed out. What was begun could not be interrupted.")
        return future.result()

    def _work(self, work: Work, body: bytes, is_packed: bool, deadline: float) -> bytes:
        unpacked = 0
        with self.room.hold(deadline, len(body)) as hold:
            try:
                if is_packed:
                    most = self._config.max_body_bytes
                    body = unpack(body, most, self.bodies, deadline)
                    unpacked = len(body)
                return work(body, hold)
            except Exception as failure:
                error = answered(failure)
            finally:
                self.bodies.give(unpacked)
        raise error

    def _finish(self, length: int, future: "asyncio.Future[bytes]") -> None:
        self.under_way -= 1
        self.bodies.give(length)
        if not future.cancelled():
            # Nobody may be waiting any more; an error must have been looked at.
            future.exception()
