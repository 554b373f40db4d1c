"""Services and queues in processes of their own, for tests."""

import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import psutil
import requests

from service.jobs.store import Job, State, Store
from service.jobs.trainers import processes
from tests.conftest import REPOSITORY
from training.config import TrainConfig
from training.run.files import epochs_finished

SECONDS = 60  # that an answer may take on a busy machine

# Long enough to be hit in the middle, again and again. Without normalization a trainer
# starts in half the time; tests/training interrupts models that have it.
CONFIG: dict[str, Any] = {
    "model": "mlp",
    "norm": False,
    "epochs": 8,
    "batch_size": 4,
    "learning_rate": 3e-4,
    "validation_split": 0.1,
    "name": "fashion",
}


def command_line(config: Mapping[str, Any]) -> list[str]:
    """Return the options of train.py that say the same."""
    words = []
    for name, value in config.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words.append(f"--{option}={value}")
    return words


class _Process(ABC):
    """What runs jobs in a process of its own, with its state below a directory.

    Args:
        root: The directory.
        words: The command line.
        limit: A shell command before it, as `ulimit -f 2000`.
    """

    def __init__(self, root: Path, words: list[str], limit: str) -> None:
        self.root = root
        self._command = (
            words if not limit else ["sh", "-c", f'{limit}; exec "$@"', "sh", *words]
        )
        self.process: subprocess.Popen[str]

    @abstractmethod
    def answers(self) -> bool:
        """Return whether it has started."""

    def start(self) -> Self:
        """Start it, and wait until it answers."""
        self.process = subprocess.Popen(
            self._command,
            cwd=REPOSITORY,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "KERASNORM_EPOCHS": "1"},  # no option of a submitted job
        )
        try:
            wait_until(self._is_up)
        except BaseException:
            self.process.kill()
            raise
        return self

    def _is_up(self) -> bool:
        assert self.process.poll() is None, self.process.communicate()[1]
        return self.answers()

    def kill(self) -> None:
        """Send SIGKILL."""
        self.process.kill()
        self.process.communicate()

    def stop(self) -> None:
        """Send SIGTERM, as Ctrl-C does, and wait for the end."""
        self.process.terminate()
        self.process.communicate(timeout=60)

    def end(self) -> None:
        """Kill it and its trainers if they still run."""
        assert self.process.stderr is not None
        if not self.process.stderr.closed:  # neither killed nor stopped before
            self.kill()
        for process in psutil.process_iter(["cmdline"]):
            if any(str(self.root) in word for word in process.info["cmdline"] or ()):
                process.kill()

    def run(self, job: int) -> Path:
        """Return the directory of a job's run."""
        return self.root / "state" / "runs" / str(job)

    def epochs(self, job: int) -> int:
        """Return how many epochs a job has finished."""
        return epochs_finished(self.run(job))

    def trainer(self, job: int) -> int | None:
        """Return the process that trains for a job."""
        found = processes(self.run(job))
        assert len(found) <= 1  # none runs twice
        return found[0].pid if found else None

    def kill_trainer(self, job: int, number: int = signal.SIGKILL) -> None:
        """Send a signal to the trainer of a job, and wait for its end."""
        process = self.trainer(job)
        assert process is not None
        os.kill(process, number)
        wait_until(lambda: self.trainer(job) != process)

    @contextmanager
    def held(self, job: int) -> Iterator[int]:
        """Stop the trainer of a job for a while, so that it is there all the time."""
        process = self.trainer(job)
        assert process is not None
        os.kill(process, signal.SIGSTOP)
        try:
            yield process
        finally:
            os.kill(process, signal.SIGCONT)

    def versions(self, name: str = "fashion") -> list[str]:
        """Return the exported versions of a model."""
        directory = self.root / "models" / name
        return sorted(p.name for p in directory.iterdir()) if directory.exists() else []


class Service(_Process):
    """`python -m service`."""

    asked = "/v1/jobs"  # to see whether it answers

    def __init__(self, root: Path, *options: object) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://localhost:{self.port}"
        words = [sys.executable, "-m", "service", "--port", str(self.port)]
        words += ["--grpc-port", "0"]
        words += ["--state-dir", str(root / "state")]
        words += ["--model-base-path", str(root / "models"), *map(str, options)]
        super().__init__(root, words, limit="")

    def answers(self) -> bool:
        try:
            return requests.get(f"{self.url}{self.asked}", timeout=SECONDS).ok
        except (requests.ConnectionError, requests.Timeout):
            return False

    def submit(self, config: Mapping[str, Any], **query: int) -> int:
        url = f"{self.url}/v1/jobs"
        answer = requests.post(url, params=query, json=config, timeout=SECONDS)
        assert answer.status_code == 201, answer.text
        return int(answer.json()["id"])

    def get(self, path: str) -> Any:
        separator = "" if path.startswith("?") else "/"
        answer = requests.get(f"{self.url}/v1/jobs{separator}{path}", timeout=SECONDS)
        assert answer.ok, answer.text
        return answer.json()

    def post(self, path: str) -> Any:
        answer = requests.post(f"{self.url}/v1/jobs/{path}", timeout=SECONDS)
        assert answer.ok, answer.text
        return answer.json()

    def wait_for(self, job: int, *states: str) -> Any:
        wait_until(lambda: self.get(str(job))["state"] in states)
        return self.get(str(job))


class QueueProcess(_Process):
    """The queue of a service, without what answers: it starts in a second.

    It is asked and told through the table of jobs.
    """

    store: Store

    def __init__(
        self,
        root: Path,
        *,
        retries: int = 3,
        stall_timeout: float = 0.0,
        limit: str = "",
        slots: int = 1,
        devices: str = "auto",
        stand_in: str = "",
    ) -> None:
        words = [sys.executable, "-m", "tests.service.queue_process", str(root)]
        words += [str(retries), str(stall_timeout), str(slots), devices, stand_in]
        super().__init__(root, words, limit)

    def answers(self) -> bool:
        return (self.root / "started").exists()

    def start(self) -> Self:
        (self.root / "started").unlink(missing_ok=True)
        super().start()
        self.store = Store(self.root / "state" / "jobs.sqlite")
        return self

    def kill(self) -> None:
        super().kill()
        self.store.close()

    def stop(self) -> None:
        super().stop()
        self.store.close()

    def submit(self, config: Mapping[str, Any], gpus: int | None = None) -> int:
        runs, exports = self.root / "state" / "runs", self.root / "models"
        options = {**config, "run_dir": runs, "export_dir": exports}
        return self.store.add(TrainConfig.model_validate(options), 0, gpus).id

    def job(self, job: int) -> Job:
        found = self.store.get(job)
        assert found is not None
        return found

    def wait_for(self, job: int, state: State) -> Job:
        wait_until(lambda: self.job(job).state is state)
        return self.job(job)


def wait_until(condition: Callable[[], object], seconds: float = 300) -> None:
    """Look again and again, less often in time: a look at a service takes its time."""
    deadline = time.monotonic() + seconds
    pause = 0.01
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(pause)
        pause = min(1.1 * pause, 0.2)
