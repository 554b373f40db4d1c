"""Jobs that are stopped or killed, in whatever way, end as if they had not been."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.jobs.store import RESUMABLE, State
from tests.service.services import QueueProcess, wait_until
from tests.training.runs import assert_same_end
from training.cli.command_line import load
from training.errors import UserError
from training.job import resume
from training.run import files

STARTED_AGAIN = "The trainer died; it is started again."


def log_of(queue: QueueProcess, job: int) -> str:
    return (queue.run(job) / "log.txt").read_text()


def damage(file: Path) -> None:
    contents = bytearray(file.read_bytes())
    contents[len(contents) // 2] ^= 255
    file.write_bytes(contents)


def last_checkpoint(run: Path) -> Path:
    indices = (run / "checkpoints").glob("ckpt-*.index")
    last = max(int(index.stem.removeprefix("ckpt-")) for index in indices)
    return run / "checkpoints" / f"ckpt-{last}.data-00000-of-00001"


def starting(queue: QueueProcess, job: int) -> int:
    """Return a trainer in its first moments, before it has imported TensorFlow."""
    wait_until(lambda: queue.trainer(job))
    trainer = queue.trainer(job)
    assert trainer is not None
    return trainer


def test_a_disturbed_job_goes_on_to_the_same_end(
    begin: Callable[..., QueueProcess], config: dict[str, Any], undisturbed: Path
) -> None:
    """Only a trainer that must have got on for what it shows trains at all."""
    queue = begin(limit="ulimit -f 2000")  # blocks of 512 bytes: 1 MB
    job = wait_while_runs_cannot_be_written(queue, config)
    fail_with_a_full_disk(queue, job)
    queue.stop()

    queue = begin(stall_timeout=10)
    assert queue.store.resume(job)
    outlive_queues_and_then_hang(queue, job)
    fail_without_its_directory(queue, job)

    assert queue.store.requeue(job, RESUMABLE)
    wait_until(lambda: queue.epochs(job) >= 2)
    queue.stop()
    assert queue.trainer(job) is None
    damage(last_checkpoint(queue.run(job)))

    queue.start()
    be_interrupted_and_cancelled(queue, job)
    assert queue.store.resume(job)
    die_with_its_queue_in_the_export(queue, job)
    queue.start()
    queue.wait_for(job, State.SUCCEEDED)
    assert_same_end(undisturbed, queue.run(job))
    log = log_of(queue, job)
    assert log.count(STARTED_AGAIN) == 1
    assert log.count("is damaged; going back to the one before it") == 1
    assert queue.versions() == ["1"]


def wait_while_runs_cannot_be_written(
    queue: QueueProcess, config: dict[str, Any]
) -> int:
    runs = queue.root / "state" / "runs"
    runs.touch()  # a file where the directory belongs
    job = queue.submit(config)
    wait_until(lambda: queue.job(job).message)
    assert queue.job(job).state is State.QUEUED
    assert queue.job(job).message.startswith("Waits, because: ")
    runs.unlink()
    starting(queue, job)
    assert queue.job(job).message == ""
    return job


def fail_with_a_full_disk(queue: QueueProcess, job: int) -> None:
    """A limit on the size of files stands for it. A failure is told by its line."""
    message = queue.wait_for(job, State.FAILED).message
    assert message.startswith("error: ")
    assert "The checkpoint of epoch 1 could not be written" in message
    assert "File too large" in message
    assert "\n" not in message


def outlive_queues_and_then_hang(queue: QueueProcess, job: int) -> None:
    """A trainer is adopted; one that does nothing is killed, and another goes on."""
    trainer = starting(queue, job)
    for _ in range(2):
        queue.kill()
        queue.start()
        assert queue.trainer(job) == trainer
    assert queue.job(job).state is State.RUNNING
    os.kill(trainer, signal.SIGSTOP)
    wait_until(lambda: queue.trainer(job) not in (None, trainer))
    assert "The trainer made no progress for 10 s; it is killed.\n" in log_of(
        queue, job
    )
    assert queue.job(job).state is State.RUNNING


def fail_without_its_directory(queue: QueueProcess, job: int) -> None:
    """Nobody by hand gets in the way of a trainer, but its directory may be removed."""
    wait_until(lambda: queue.epochs(job) >= 1)
    with queue.held(job):  # or it would write meanwhile
        with pytest.raises(UserError, match="Another process is training in "):
            resume(queue.run(job), load(queue.run(job) / files.CONFIG))
        shutil.rmtree(queue.run(job))
    failed = queue.wait_for(job, State.FAILED)
    assert failed.message == f"{queue.run(job)} has been removed."


def be_interrupted_and_cancelled(queue: QueueProcess, job: int) -> None:
    """Someone else tells the trainer to stop; the next queue goes on, and cancels."""
    starting(queue, job)
    queue.kill_trainer(job, signal.SIGTERM)
    queue.wait_for(job, State.INTERRUPTED)
    queue.stop()
    queue.start()
    starting(queue, job)
    assert queue.store.cancel(job)
    assert queue.wait_for(job, State.CANCELLED).ended
    assert queue.trainer(job) is None


def die_with_its_queue_in_the_export(queue: QueueProcess, job: int) -> None:
    """Send SIGKILL while the version has been begun and is not yet complete."""
    trainer = starting(queue, job)
    directory = queue.root / "models" / "fashion"
    deadline = time.monotonic() + 300
    while not any(directory.glob(".incomplete-*/*")):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(trainer, signal.SIGKILL)
    queue.kill()
    (version,) = queue.versions()
    assert version.startswith(".incomplete-")


def test_a_trainer_that_keeps_dying_fails_with_the_end_of_its_log(
    begin: Callable[..., QueueProcess], config: dict[str, Any]
) -> None:
    queue = begin(retries=1)
    job = queue.submit(config)
    for _ in range(2):
        starting(queue, job)
        queue.kill_trainer(job)
    first, *lines = queue.wait_for(job, State.FAILED).message.splitlines()
    assert first == (
        "The trainer died 2 times without finishing an epoch. Its last lines:"
    )
    assert STARTED_AGAIN in lines
