"""The queue of a service in a process of its own, until SIGTERM."""

import signal
import sys
import threading
from pathlib import Path

from service.jobs import trainers
from service.jobs.job_queue import Queue, QueueConfig


def leave_priority(process: int) -> None:
    """Beside the tests' other process a trainer of low priority would hardly run."""


def main(root: Path, retries: int, stall_timeout: float) -> None:
    trainers._let_others_first = leave_priority
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    queue = Queue(
        QueueConfig(
            root / "state",
            root / "models",
            retries=retries,
            stall_timeout=stall_timeout,
        )
    )
    queue.start()
    (root / "started").touch()
    stopped.wait()
    queue.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
