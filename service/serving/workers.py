"""The threads that answer requests, and the limits on what they are given."""

import asyncio
import functools
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from service.serving.config import ServingConfig
from service.serving.errors import exhausted, invalid, late

_GRACE = 1.0  # seconds that TensorFlow gets to notice that time has run out

Work = Callable[[bytes, float], bytes]
"""Makes an answer of a body, until a deadline by `time.monotonic()`."""


class Workers:
    """Threads for a limited number of requests, and room for a limited sum of bytes.

    Args:
        config: The limits.

    Attributes:
        under_way: Requests that wait for a thread or have one.
        pending_bytes: Bytes of all bodies that are arriving or under way.
    """

    def __init__(self, config: ServingConfig) -> None:
        self.under_way = 0
        self.pending_bytes = 0
        self._config = config
        self._threads = ThreadPoolExecutor(config.threads, "predict")

    def stop(self) -> None:
        """Finish what has begun."""
        self._threads.shutdown()

    async def read_body(self, request: Request) -> bytes:
        """Return the whole body, which stays pending until `run` has ended.

        Raises:
            HTTPException: If the body is too long or too slow, or the client leaves.
            tf.errors.ResourceExhaustedError: If too many bytes are pending.
        """
        chunks: list[bytes] = []
        length = 0
        try:
            async with asyncio.timeout(self._config.timeout):
                async for chunk in request.stream():
                    chunks.append(chunk)
                    length += len(chunk)
                    self.pending_bytes += len(chunk)
                    _check_length(length, self._config.max_body_bytes)
                    self._check_room()
        except BaseException as error:
            self.pending_bytes -= length
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
            HTTPException: If the unpacked body is too long.
        """
        if self.under_way >= self._config.max_queue:
            self.pending_bytes -= len(body)
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

    def _check_room(self) -> None:
        if self.pending_bytes > self._config.max_pending_bytes:
            raise exhausted("Too many bytes are waiting. Try again later.")

    def _work(self, work: Work, body: bytes, is_packed: bool, deadline: float) -> bytes:
        if is_packed:
            body = unpack(body, self._config.max_body_bytes)
        return work(body, deadline)

    def _finish(self, length: int, future: "asyncio.Future[bytes]") -> None:
        self.under_way -= 1
        self.pending_bytes -= length
        if not future.cancelled():
            # Nobody may be waiting any more; an error must have been looked at.
            future.exception()


def unpack(body: bytes, most: int) -> bytes:
    """Return what gzip has packed.

    Args:
        body: The packed bytes.
        most: The largest number of unpacked bytes.

    Raises:
        tf.errors.InvalidArgumentError: If the body is not packed by gzip.
        HTTPException: If the unpacked body is too long; it is not unpacked further.
    """
    reader = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        unpacked = reader.decompress(body, most + 1)
    except zlib.error as error:
        raise invalid(f"The body must be of gzip. Received: {error}.") from None
    _check_length(len(unpacked), most)
    if not reader.eof:
        raise invalid("The body must be of gzip. Received: it ends too early.")
    return unpacked


def _check_length(length: int, most: int) -> None:
    if length > most:
        raise HTTPException(413, f"A body has at most {most} bytes.")
