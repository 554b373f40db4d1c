"""Jobs that are killed, in whatever process, end as if they had not been."""

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from service.jobs.store import RESUMABLE, State
from tests.service.services import CONFIG, QueueProcess, wait_until
from tests.training.runs import assert_same_end

STARTED_AGAIN = "The trainer died; it is started again."

RunTrainPy = Callable[..., CompletedProcess[str]]


@pytest.fixture
def config(pictures: Path) -> dict[str, Any]:
    return {**CONFIG, "dataset": f"folder:{pictures}"}


@pytest.fixture(scope="module")
def undisturbed(
    run_train_py: RunTrainPy,
    pictures: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The run of CONFIG by train.py."""
    root = tmp_path_factory.mktemp("undisturbed")
    config = {**CONFIG, "dataset": f"folder:{pictures}"}
    options = [f"--{k.replace('_', '-')}={value}" for k, value in config.items()]
    process = run_train_py(*options, "--run-dir=r", "--export-dir=e", cwd=root)
    assert process.returncode == 0, process.stderr
    return root / "r" / "fashion"


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., QueueProcess]]:
    """Start queues on one directory; what still runs at the end is killed."""
    queues: list[QueueProcess] = []

    def start(retries: int = 3, limit: str = "") -> QueueProcess:
        queues.append(QueueProcess(tmp_path, retries=retries, limit=limit))
        return queues[-1].start()

    yield start
    for queue in queues:
        queue.end()


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

    # A trainer is seen from its first moment, long before it has imported TensorFlow.
    wait_until(lambda: queue.trainer(job))
    trainer = queue.trainer(job)
    for _ in range(3):
        queue.kill()
        queue.start()
        assert queue.trainer(job) == trainer
    assert queue.job(job).state is State.RUNNING
    assert queue.job(mistaken).state is State.QUEUED

    # The trainer dies; another one goes on with the run.
    wait_until(lambda: queue.epochs(job) >= 1)
    queue.kill_trainer(job)
    wait_until(lambda: queue.trainer(job))
    assert queue.job(job).state is State.RUNNING
    assert log_of(queue, job).count(STARTED_AGAIN) == 1

    # Its directory is removed: it fails. A mistake fails at once, with its line.
    wait_until(lambda: queue.epochs(job) >= 2)
    with queue.held(job):  # or it would write meanwhile
        shutil.rmtree(queue.run(job))
    failed = queue.wait_for(job, State.FAILED)
    assert failed.message == f"{queue.run(job)} has been removed."
    message = queue.wait_for(mistaken, State.FAILED).message
    assert message.startswith("error: ")
    assert "\n" not in message

    # It begins anew.
    assert queue.store.requeue(job, RESUMABLE)
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

    queue.wait_for(job, State.SUCCEEDED)
    assert_same_end(undisturbed, queue.run(job))
    log = log_of(queue, job)
    assert log.count(STARTED_AGAIN) == 1
    assert log.count("is damaged; going back to the one before it") == 1
    assert queue.versions() == ["1"]


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
    queue = begin()
    assert queue.store.requeue(job, RESUMABLE)

    # It is cancelled and resumed.
    wait_until(lambda: queue.epochs(job) >= 1)
    assert queue.store.cancel(job)
    assert queue.wait_for(job, State.CANCELLED).ended
    assert queue.trainer(job) is None
    assert queue.store.requeue(job, RESUMABLE)

    # Someone else tells the trainer to stop.
    wait_until(lambda: queue.epochs(job) >= 2)
    queue.kill_trainer(job, signal.SIGTERM)
    queue.wait_for(job, State.INTERRUPTED)

    # A queue that starts goes on with what was interrupted; one that stops puts its
    # jobs back.
    queue.stop()
    queue.start()
    wait_until(lambda: queue.epochs(job) >= 3)
    queue.stop()
    assert queue.trainer(job) is None
    queue.start()
    queue.wait_for(job, State.SUCCEEDED)
    assert_same_end(undisturbed, queue.run(job))
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
