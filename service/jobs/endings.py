"""What becomes of a job once its trainer has ended."""

import signal

from service.jobs.rows import Job, State
from service.jobs.trainers import End
from training.run.files import last_lines, result

_MISTAKE = 2  # train.py's exit status for what the user must put right
# train.py's own; before it handles signals; if it did not end in time.
_INTERRUPTED = (
    *(128 + signal.SIGTERM, 128 + signal.SIGINT),
    *(-signal.SIGTERM, -signal.SIGINT),
    -signal.SIGALRM,
)


def state_after(job: Job, end: End) -> tuple[State, str]:
    """Return the state that a trainer's end leads to: RUNNING if it only died.

    Returns:
        The state, and the message of the job.
    """
    if result(job.directory):
        return State.SUCCEEDED, ""
    if job.state is State.CANCELLING:
        return State.CANCELLED, job.message
    if end.status in _INTERRUPTED:
        return State.INTERRUPTED, "The trainer was told to stop."
    if end.status == _MISTAKE:
        lines = last_lines(job.directory, 1)
        return State.FAILED, lines[0] if lines else f"{job.directory} has been removed."
    return State.RUNNING, ""
