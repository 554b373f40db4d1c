"""A job that is stopped, in whatever way, ends as if it had not been."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.jobs.store import State
from tests.service.services import QueueProcess, wait_until
from tests.training.runs import assert_same_end


def test_a_job_waits_fails_is_cancelled_and_interrupted_and_goes_on(
    begin: Callable[..., QueueProcess], config: dict[str, Any], undisturbed: Path
) -> None:
    queue = begin(limit="ulimit -f 2000")  # blocks of 512 bytes: 1 MB
    runs = queue.root / "state" / "runs"

    # It waits while runs cannot be written.
    runs.touch()  # a file where the directory belongs
    job = queue.submit(config)
    wait_until(lambda: queue.job(job).message)
    assert queue.job(job).state is State.QUEUED
    assert queue.job(job).message.startswith("Waits, because: ")
    runs.unlink()
    wait_until(lambda: queue.trainer(job))
    assert queue.job(job).message == ""

    # A full disk, for which a limit on the size of files stands, loses nothing.
    message = queue.wait_for(job, State.FAILED).message
    assert "The checkpoint of epoch 1 could not be written" in message
    assert "File too large" in message
    queue.stop()
    queue = begin(stall_timeout=10)
    assert queue.store.resume(job)

    # It is cancelled and resumed.
    wait_until(lambda: queue.epochs(job) >= 1)
    assert queue.store.cancel(job)
    assert queue.wait_for(job, State.CANCELLED).ended
    assert queue.trainer(job) is None
    assert queue.store.resume(job)

    # Its trainer hangs: it is killed, and another one goes on from its checkpoint.
    epochs = queue.epochs(job)  # some may have ended before it was cancelled
    wait_until(lambda: queue.trainer(job) and queue.epochs(job) > epochs)
    hanging = queue.trainer(job)
    assert hanging is not None
    os.kill(hanging, signal.SIGSTOP)
    wait_until(lambda: queue.trainer(job) not in (None, hanging))
    log = (queue.run(job) / "log.txt").read_text()
    assert "The trainer made no progress for 10 s; it is killed.\n" in log
    assert queue.job(job).state is State.RUNNING

    # Someone else tells the trainer to stop.
    epochs = queue.epochs(job)
    wait_until(lambda: queue.epochs(job) > epochs)
    queue.kill_trainer(job, signal.SIGTERM)
    queue.wait_for(job, State.INTERRUPTED)

    # A queue that starts goes on with what was interrupted; one that stops puts its
    # jobs back.
    queue.stop()
    queue.start()
    epochs = queue.epochs(job)
    wait_until(lambda: queue.epochs(job) > epochs)
    queue.stop()
    assert queue.trainer(job) is None
    queue.start()
    queue.wait_for(job, State.SUCCEEDED)
    assert_same_end(undisturbed, queue.run(job))
    assert queue.versions() == ["1"]
