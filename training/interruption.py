"""SIGINT and SIGTERM end the process, whatever it is doing.

Their handler raises KeyboardInterrupt, so that files are closed and temporary ones
removed. It comes up wherever the main thread is: a bare `except` or a `__del__` may
drop it, an extension turn it into an error of its own. So whoever catches every error
asks `status`, and a process that goes on all the same is ended by SIGALRM.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
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


@contextlib.contextmanager
def untaken_signals() -> Iterator[None]:
    """Has them end the process at once: for imports, which often drop exceptions."""
    taken = [n for n in _NUMBERS if signal.getsignal(n) is _interrupt]
    for number in taken:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in taken:
        signal.signal(number, _interrupt)


def say_when_interrupted(text: str) -> None:
    """Sets the line that the user then reads."""
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
    # The signal may have come in the middle of a write to the same stream.
    with contextlib.suppress(RuntimeError):
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.write(sys.stdout.fileno(), _last_words.encode())
    raise KeyboardInterrupt
