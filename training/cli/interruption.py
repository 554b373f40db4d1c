"""SIGINT and SIGTERM end the process, as soon as Python runs.

The handler raises KeyboardInterrupt, so that files are closed and temporary files are
removed. The exception appears wherever the main thread is. There a bare `except` or a
`__del__` may drop it, and an extension may turn it into an error of its own. So code
that catches every error asks `status`, and SIGALRM ends a process that goes on anyway.
"""

import contextlib
import os
import signal
import sys
from types import FrameType

SECONDS_TO_END = 10
_NUMBERS = (signal.SIGINT, signal.SIGTERM)

_last_words = ""
_received: int | None = None


def take_signals() -> None:
    """Install the handler. Ignored signals stay ignored, as in the background."""
    for number in _NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def release_signals() -> None:
    """Let SIGINT and SIGTERM end the process at once from here on."""
    for number in _NUMBERS:
        if signal.getsignal(number) is _interrupt:
            signal.signal(number, signal.SIG_DFL)


def say_when_interrupted(text: str) -> None:
    """Set the line that is printed at an interruption."""
    global _last_words
    _last_words = f"\n{text}\n"


def status() -> int | None:
    """Return 128 + the received signal, or None if there was none."""
    return None if _received is None else 128 + _received


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _received
    if _received is not None:
        os._exit(128 + number)  # the user asks for the second time
    _received = number
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(SECONDS_TO_END)
    # The signal may have come in the middle of a write, or the output may be gone.
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    with contextlib.suppress(Exception):
        os.write(sys.stdout.fileno(), os.fsencode(_last_words))
    raise KeyboardInterrupt
