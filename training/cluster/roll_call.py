"""Ends a worker whose fellow workers do not come; runs beside it while it waits.

TensorFlow waits for the other workers in one call, the chief without any limit, and
lets no thread and no signal handler of Python run meanwhile.
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

LONGEST_WAIT_SECONDS = 600.0
_SECONDS_TO_ANSWER = 3.0


@contextlib.contextmanager
def roll_call(addresses: Sequence[str]) -> Iterator[None]:
    """Limits the time that the body takes.

    Where it takes too long, one line says which addresses do not answer, and this
    process is killed. SIGINT ends it at once.

    Args:
        addresses: HOST:PORT of every worker.
    """
    command = [sys.executable, __file__, str(os.getpid()), str(LONGEST_WAIT_SECONDS)]
    watch = subprocess.Popen(
        [*command, *addresses], stdin=subprocess.PIPE, start_new_session=True
    )
    with _signals_kept(), watch:
        yield


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Has Ctrl-C end the process, and takes SIGTERM back, which TensorFlow takes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    interrupt = signal.getsignal(signal.SIGINT)
    if interrupt is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, terminate)


def _watch(process: int, seconds: float, addresses: Sequence[str]) -> None:
    """Kills the process unless its end of this one's standard input closes in time."""
    if select.select([sys.stdin], [], [], seconds)[0]:
        return
    silent = [address for address in addresses if not answers(address)]
    reason = (
        f"No answer from {', '.join(silent)}."
        if silent
        else "All addresses answer; does each worker have an index of its own?"
    )
    print(
        f"error: Not all workers of TF_CONFIG have come in {seconds:.0f} s. {reason}",
        file=sys.stderr,
    )
    os.kill(process, signal.SIGKILL)


def answers(address: str) -> bool:
    """Whether something listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _SECONDS_TO_ANSWER).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    _watch(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
