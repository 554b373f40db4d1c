"""Trainers: processes that run `train.py --resume` on the directory of a job."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import psutil

from training.cli.command_line import ENVIRONMENT_PREFIX
from training.options.values import REPOSITORY
from training.run.claim import INHERITED, LOCK, is_claimed
from training.run.files import LOG

SHARED_METRICS = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that tells prometheus_client where several processes count together.

It is the service's, and no trainer's.
"""

_GRACE_SECONDS = 10.0
_NICE, _NICEST = 10, 19
NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class End:
    """The end of a trainer, with its exit status if that is known."""

    status: int | None


class Trainers(Protocol):
    """Where trainers run. At most one runs in a directory."""

    def start(
        self, directory: Path, gpus: int = 0, variables: Mapping[str, str] = NOTHING
    ) -> None:
        """Start a trainer that goes on with the run, unless one does already.

        Args:
            directory: The directory of the run.
            gpus: How many GPUs it gets, for those who choose them.
            variables: Of its environment: which GPUs of this machine it may see.

        Raises:
            OSError: If it cannot be started now.
        """

    def end(self, directory: Path) -> End | None:
        """Return how the trainer in the directory has ended, or None while it runs.

        Raises:
            OSError: If that cannot be found out now.
        """

    def stop(self, directory: Path) -> None:
        """Ask a trainer to stop. A later call forces it.

        Raises:
            OSError: If it cannot be reached now.
        """

    def kill(self, directory: Path) -> None:
        """End a trainer that does nothing any more, so that it counts as one that died.

        Raises:
            OSError: If it cannot be reached now.
        """


class LocalTrainers:
    """Trainers on this machine. They outlive the service."""

    def __init__(self) -> None:
        self._children: dict[Path, subprocess.Popen[bytes]] = {}
        self._asked: dict[Path, float] = {}

    def start(
        self, directory: Path, gpus: int = 0, variables: Mapping[str, str] = NOTHING
    ) -> None:
        """Start a process in a session of its own that adds its output to log.txt.

        It is born with the lock on the directory. So every service sees it from its
        first moment on, even one that starts after this one was killed.
        """
        self._asked.pop(directory, None)
        lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _is_taken(lock):
                return  # someone trains there
            with (directory / LOG).open("ab") as log:
                child = subprocess.Popen(
                    command(directory),
                    cwd=REPOSITORY,
                    env=environment(os.environ)
                    | dict(variables)
                    | {INHERITED: str(directory)},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=[lock],
                )
        finally:
            os.close(lock)
        self._children[directory] = child
        _let_others_first(child.pid)

    def end(self, directory: Path) -> End | None:
        """Look at the child process, then for one that an earlier service started."""
        child = self._children.get(directory)
        if child is not None and child.poll() is None:
            return None
        if is_claimed(directory):
            return None
        self._children.pop(directory, None)
        self._asked.pop(directory, None)
        return End(child.returncode if child else None)

    def stop(self, directory: Path) -> None:
        """Send SIGTERM at first, and SIGKILL once ten seconds have passed."""
        if directory not in self._asked:
            self._asked[directory] = time.monotonic()
            _signal(directory, signal.SIGTERM)
        elif time.monotonic() > self._asked[directory] + _GRACE_SECONDS:
            _signal(directory, signal.SIGKILL)

    def kill(self, directory: Path) -> None:
        """Send SIGKILL, which also ends a process that is stopped."""
        _signal(directory, signal.SIGKILL)


def processes(directory: Path) -> list[psutil.Process]:
    """Return the processes on this machine that train in the directory."""
    # An earlier service may have been started with another name of Python.
    _, *own = command(directory)
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if (process.info["cmdline"] or [])[-len(own) :] == own
    ]


def command(directory: Path) -> list[str]:
    """Return the command line of a trainer."""
    train_py = str(REPOSITORY / "train.py")
    return [sys.executable, "-u", train_py, "--resume", str(directory)]


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a trainer, without train.py's options and the token."""
    return {
        name: value
        for name, value in variables.items()
        if not name.startswith(ENVIRONMENT_PREFIX) and name != SHARED_METRICS
    }


def _is_taken(lock: int) -> bool:
    """Take a lock; return False if another process holds it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _let_others_first(process: int) -> None:
    """Give a process that has just begun a low priority, which its threads inherit.

    Predictions must not wait for a trainer.
    """
    with contextlib.suppress(psutil.Error, OSError):
        trainer = psutil.Process(process)
        trainer.nice(min(trainer.nice() + _NICE, _NICEST))
        if hasattr(psutil, "IOPRIO_CLASS_IDLE"):
            trainer.ionice(psutil.IOPRIO_CLASS_IDLE)
    # Linux may share the processor out by sessions first, and the trainer has its own.
    with contextlib.suppress(OSError):
        Path(f"/proc/{process}/autogroup").write_text(f"{_NICE}", encoding="ascii")


def _signal(directory: Path, number: signal.Signals) -> None:
    for process in processes(directory):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            process.send_signal(number)
