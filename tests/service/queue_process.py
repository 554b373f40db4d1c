"""The queue of a service in a process of its own, until SIGTERM."""

import signal
import sys
import threading
from pathlib import Path

from service.jobs import trainers
from service.jobs.gpus import gpus_of
from service.jobs.job_queue import Queue, QueueConfig


def leave_priority(process: int) -> None:
    """Beside the tests' other process a trainer of low priority would hardly run."""


def main(
    root: Path,
    retries: int,
    stall_timeout: float,
    slots: int,
    devices: str,
    stand_in: str,
) -> None:
    trainers._let_others_first = leave_priority
    if stand_in:  # Python code instead of train.py
        trainers.command = lambda directory: [
            *(sys.executable, "-c", stand_in, str(directory))
        ]
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    queue = Queue(
        QueueConfig(
            root / "state",
            root / "models",
            retries=retries,
            stall_timeout=stall_timeout,
            slots=slots,
            gpus=gpus_of(devices),
        )
    )
    queue.start()
    (root / "started").touch()
    stopped.wait()
    queue.stop()


if __name__ == "__main__":
    root, retries, stall_timeout, slots, *others = sys.argv[1:]
    main(Path(root), int(retries), float(stall_timeout), int(slots), *others)
