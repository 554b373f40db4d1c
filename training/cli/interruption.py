"""SIGINT and SIGTERM end the process, as soon as Python runs.

Their handler raises KeyboardInterrupt, so that files are closed and temporary ones
removed. The exception comes up wherever the main thread is: a bare `except` or a
`__del__` may drop it, an extension turn it into an error of its own. So whoever catches
every error asks `status`, and a process that goes on all the same is ended by SIGALRM.
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
    """Installs the handler; what is ignored, as in the background, stays ignored."""
    for number in _NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def release_signals() -> None:
    """From here on SIGINT and SIGTERM end the process at once."""
    for number in _NUMBERS:
        if signal.getsignal(number) is _interrupt:
            signal.signal(number, signal.SIG_DFL)


def say_when_interrupted(text: str) -> None:
    """Sets the line that is printed at an interruption."""
    global _last_words
    _last_words = f"\n{text}\n"


def status() -> int | None:
    """128 + the signal that was received; None if none was."""
    return None if _received is None else 128 + _received


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _received
    if _received is not None:
        os._exit(128 + number)  # who asks twice does not want to wait
    _received = number
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(SECONDS_TO_END)
    # Whatever has become of the output, in the middle of a write to which the signal
    # may have come.
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    with contextlib.suppress(Exception):
        os.write(sys.stdout.fileno(), os.fsencode(_last_words))
    raise KeyboardInterrupt
