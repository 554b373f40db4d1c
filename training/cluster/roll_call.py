"""End a worker that waits in vain for the others, from a process beside it.

TensorFlow waits for the other workers in one call, on the chief without a limit. No
thread and no signal handler of Python runs during this call.
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
    """Limit the time that the body may take.

    If it takes too long, print one line that names the addresses that do not answer,
    and kill this process. SIGINT ends the process at once.

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
    """Let Ctrl-C end the process, and undo that TensorFlow takes SIGTERM."""
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
    """Kill the process if it does not close this one's standard input in time."""
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
    """Return whether something listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _SECONDS_TO_ANSWER).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    _watch(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
