"""Trainers: processes that run `train.py --resume` on the directory of a job."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from service.runs import LOG
from training.claim import holder
from training.command_line import ENVIRONMENT_PREFIX
from training.config import REPOSITORY

_GRACE_SECONDS = 10.0


@dataclass(frozen=True)
class End:
    """The end of a trainer; its exit status where it is known."""

    status: int | None


class Trainers(Protocol):
    """Where trainers run. One runs at most in a directory."""

    def start(self, directory: Path) -> None:
        """Starts a trainer that goes on with the run in the directory."""

    def end(self, directory: Path) -> End | None:
        """How the trainer in the directory has ended; None while it runs."""

    def stop(self, directory: Path) -> None:
        """Asks a trainer to stop; asked again later, makes it."""


class LocalTrainers:
    """Trainers on this machine, which outlive the service."""

    def __init__(self) -> None:
        self._children: dict[Path, subprocess.Popen[bytes]] = {}
        self._asked: dict[Path, float] = {}

    def start(self, directory: Path) -> None:
        """Starts a process in a session of its own, its output added to log.txt."""
        self._asked.pop(directory, None)
        with (directory / LOG).open("ab") as log:
            self._children[directory] = subprocess.Popen(
                command(directory),
                cwd=REPOSITORY,
                env=environment(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def end(self, directory: Path) -> End | None:
        """Looks at the child process, then for one that an earlier service started."""
        child = self._children.get(directory)
        if child is not None and child.poll() is None:
            return None
        if holder(directory) is not None:
            return None
        self._children.pop(directory, None)
        return End(child.returncode if child else None)

    def stop(self, directory: Path) -> None:
        """Sends SIGTERM at first; SIGKILL once ten seconds have passed."""
        if directory not in self._asked:
            self._asked[directory] = time.monotonic()
            self._signal(directory, signal.SIGTERM)
        elif time.monotonic() > self._asked[directory] + _GRACE_SECONDS:
            self._signal(directory, signal.SIGKILL)

    def _signal(self, directory: Path, number: signal.Signals) -> None:
        child = self._children.get(directory)
        alive = child is not None and child.poll() is None
        process = child.pid if child and alive else holder(directory)
        if process is not None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(process, number)


def command(directory: Path) -> list[str]:
    """The command line of a trainer."""
    train_py = str(REPOSITORY / "train.py")
    return [sys.executable, "-u", train_py, "--resume", str(directory)]


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment of a trainer, without the service's own options and token."""
    return {
        name: value
        for name, value in variables.items()
        if not name.startswith(ENVIRONMENT_PREFIX)
    }
