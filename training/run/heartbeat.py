"""Show that a run gets on: touch a file of its directory, about once a second.

In the middle of an epoch only a finished step counts. Elsewhere, while data is
prepared, the first step is compiled or the model is exported, any work of the
process's threads counts. A process that is stopped or waits for ever does none.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from training.run import files

_SECONDS_BETWEEN_BEATS = 1.0
# Seconds of a processor from one look to the next: more than idle threads use (0.0002
# with TensorFlow's), less than a slow download.
_LEAST_WORK = 5e-4

_steps_alone = threading.Event()


@contextlib.contextmanager
def beating(directory: Path) -> Iterator[None]:
    """Touch the file in a thread whenever the other threads have done something."""
    ended = threading.Event()
    thread = threading.Thread(target=_beat_on, args=(directory, ended), daemon=True)
    _steps_alone.clear()
    beat(directory)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def count_steps_alone(yes: bool) -> None:
    """Say whether only finished steps count from here on; each then calls `beat`."""
    _steps_alone.set() if yes else _steps_alone.clear()


def beat(directory: Path) -> None:
    """Touch the file."""
    # A full disk or a removed directory is found out by those who must write there.
    with contextlib.suppress(OSError):
        (directory / files.BEAT).touch()


def _beat_on(directory: Path, ended: threading.Event) -> None:
    done = _work_of_others()
    while not ended.wait(_SECONDS_BETWEEN_BEATS):
        before, done = done, _work_of_others()
        if not _steps_alone.is_set() and done > before + _LEAST_WORK:
            beat(directory)


def _work_of_others() -> float:
    """Return the seconds of a processor that all threads but this one have used."""
    return time.process_time() - time.thread_time()
