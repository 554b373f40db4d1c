"""The log of a job, followed as server-sent events."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from service.jobs.files import open_below
from service.jobs.rows import UNFINISHED
from service.jobs.store import Store
from training.errors import printable
from training.run.files import LOG

_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_BETWEEN_SIGNS = 10.0  # of life while the log is quiet
_BYTES_AT_A_TIME = 2**20


async def follow(
    store: Store, job: int, place: int, is_stopping: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """Yield the log of a job, line by line, as server-sent events.

    The last event is named `end` and holds the state of the job, or `deleted`.

    Args:
        store: The jobs.
        job: Its number.
        place: The byte of the log to begin with. An event's id is the byte at which
            its line ends.
        is_stopping: Return whether the server is about to stop. The events then end
            without `end`.
    """
    last_sign = time.monotonic()
    while not is_stopping():
        state, lines = await asyncio.to_thread(_read_on, store, job, place)
        for line in lines:
            place += len(line)
            text = printable(line.decode(errors="replace").rstrip("\r\n"))
            yield format_sse_event(data_str=text, id=str(place))
        if lines:
            continue
        if state not in UNFINISHED:
            yield format_sse_event(data_str=state, event="end")
            return
        if time.monotonic() > last_sign + _SECONDS_BETWEEN_SIGNS:
            yield KEEPALIVE_COMMENT
            last_sign = time.monotonic()
        await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)


def _read_on(store: Store, number: int, place: int) -> tuple[str, list[bytes]]:
    """Return the state of a job, and its log's lines from a byte on."""
    job = store.get(number)
    if job is None:
        return "deleted", []
    # The state was read before the log, so that nothing is missed at the end.
    is_open = job.state in UNFINISHED
    try:
        with open_below(job.directory, LOG) as file:
            file.seek(place)
            text = file.read(_BYTES_AT_A_TIME)
    except OSError:
        return job.state, []
    goes_on = is_open or len(text) == _BYTES_AT_A_TIME
    is_endless = len(text) == _BYTES_AT_A_TIME and b"\n" not in text
    if goes_on and not is_endless:
        text = text[: text.rfind(b"\n") + 1]  # the last line is not complete yet
    return job.state, text.splitlines(keepends=True)
