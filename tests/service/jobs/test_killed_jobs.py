"""Jobs that are killed, in whatever process, end as if they had not been."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from service.jobs.store import RESUMABLE, State
from tests.service.services import QueueProcess, wait_until
from tests.training.runs import assert_same_end

STARTED_AGAIN = "The trainer died; it is started again."

RunTrainPy = Callable[..., CompletedProcess[str]]


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


def kill_in_export(queue: QueueProcess, job: int) -> None:
    """Send SIGKILL while the version has been begun and is not yet complete."""
    process = queue.trainer(job)
    assert process is not None
    directory = queue.root / "models" / "fashion"
    deadline = time.monotonic() + 300
    while not any(directory.glob(".incomplete-*/*")):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    (version,) = queue.versions()
    assert version.startswith(".incomplete-")


def test_a_job_outlives_its_directory_its_trainers_and_its_queues(
    begin: Callable[..., QueueProcess],
    config: dict[str, Any],
    undisturbed: Path,
    run_train_py: RunTrainPy,
    tmp_path: Path,
) -> None:
    queue = begin()
    job = queue.submit(config)
    mistaken = queue.submit({"dataset": "fashion_mnits"})

    # Its directory is removed: it fails. A mistake fails at once, with its line.
    wait_until(lambda: queue.epochs(job) >= 1)
    assert queue.job(mistaken).state is State.QUEUED
    with queue.held(job):  # or it would write meanwhile
        shutil.rmtree(queue.run(job))
    failed = queue.wait_for(job, State.FAILED)
    assert failed.message == f"{queue.run(job)} has been removed."
    message = queue.wait_for(mistaken, State.FAILED).message
    assert message.startswith("error: ")
    assert "\n" not in message

    # It begins anew. A trainer is seen from its first moment, long before it has
    # imported TensorFlow.
    assert queue.store.requeue(job, RESUMABLE)
    wait_until(lambda: queue.trainer(job))
    trainer = queue.trainer(job)
    for _ in range(3):
        queue.kill()
        queue.start()
        assert queue.trainer(job) == trainer
    assert queue.job(job).state is State.RUNNING
    wait_until(lambda: queue.epochs(job) >= 1)

    # The queue dies; the next one adopts the trainer that lives on. None by hand gets
    # in its way.
    with queue.held(job) as trainer:
        queue.kill()
        queue.start()
        assert queue.trainer(job) == trainer
        assert queue.job(job).state is State.RUNNING
        by_hand = run_train_py("--resume", queue.run(job), cwd=tmp_path)
        assert by_hand.returncode == 2
        assert by_hand.stderr.startswith("error: Another process is training in ")

    # Both die; a damaged checkpoint is left.
    wait_until(lambda: queue.epochs(job) >= 2)
    queue.kill()
    queue.kill_trainer(job)
    damage(last_checkpoint(queue.run(job)))
    queue.start()

    # The trainer that goes on dies in its export.
    wait_until(lambda: queue.trainer(job))
    kill_in_export(queue, job)

    queue.wait_for(job, State.SUCCEEDED)
    assert_same_end(undisturbed, queue.run(job))
    log = log_of(queue, job)
    assert log.count(STARTED_AGAIN) == 2
    assert log.count("is damaged; going back to the one before it") == 1
    assert queue.versions() == ["1"]


def test_a_trainer_that_keeps_dying_fails_with_the_end_of_its_log(
    begin: Callable[..., QueueProcess], config: dict[str, Any]
) -> None:
    queue = begin(retries=1)
    job = queue.submit(config)
    for _ in range(2):
        wait_until(lambda: queue.trainer(job))
        queue.kill_trainer(job)
    first, *lines = queue.wait_for(job, State.FAILED).message.splitlines()
    assert first == (
        "The trainer died 2 times without finishing an epoch. Its last lines:"
    )
    assert STARTED_AGAIN in lines
