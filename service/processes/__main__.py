"""One of the other processes: `python -m service.processes`, which the service runs."""

import contextlib
import os
import shutil
import signal
import socket
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from service.processes.messages import Orders
from training.cli.quiet import importing, start_tensorflow
from training.errors import UserError


def main() -> None:
    """Serve as the main process says, until it says or has ended."""
    control: Connection[Any, Any] = Connection(int(sys.argv[1]))
    handing = socket.socket(fileno=int(sys.argv[2]))
    orders: Orders = control.recv()
    threading.Thread(
        target=_end_with, args=(handing, orders.directory), daemon=True
    ).start()
    start_tensorflow()
    try:
        with importing():
            from service.processes.following import serve

        serve(orders, control, handing)
    except UserError as error:
        sys.exit(f"error: {error}")


def _end_with(main_process: socket.socket, directory: Path) -> None:
    """End when the main process has ended without a word, and tidy up for it."""
    # It sends nothing. Its end is an error if it has left something unread.
    with contextlib.suppress(OSError):
        main_process.recv(1)
    shutil.rmtree(directory, ignore_errors=True)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
