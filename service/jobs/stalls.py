"""Notice trainers that make no progress."""

import time
from dataclasses import dataclass

from service.jobs.rows import Job
from training.run.files import last_progress

# A longer time between two looks is not the trainer's: the machine was suspended.
_LONGEST_STEP = 5.0


@dataclass
class _Watch:
    progress: float | None  # as the trainer has left it
    looked: float
    still: float = 0.0  # seconds that it has been so


class Stalls:
    """Count how long the progress of each trainer has been the same.

    The time that a trainer writes down is only compared with what it was, so that a
    clock that jumps changes nothing.

    Args:
        timeout: The seconds after which a trainer has stalled; 0 for never.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._watches: dict[int, _Watch] = {}

    def has_stalled(self, job: Job) -> bool:
        """Look at the trainer of a job; return whether it has stalled."""
        now, progress = time.monotonic(), last_progress(job.directory)
        watch = self._watches.get(job.id)
        if watch is None or watch.progress != progress:
            self._watches[job.id] = _Watch(progress, now)
            return False
        watch.still += min(now - watch.looked, _LONGEST_STEP)
        watch.looked = now
        return 0 < self.timeout <= watch.still

    def forget(self, job: Job) -> None:
        """Begin anew with the next trainer of a job."""
        self._watches.pop(job.id, None)
