"""A service in a process of its own, for tests."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import requests

from service.jobs.trainers import processes
from tests.conftest import REPOSITORY

SECONDS = 60  # that an answer may take on a busy machine


class Service:
    """`python -m service`, with its state below a directory."""

    asked = "/v1/jobs"  # to see whether it answers

    def __init__(self, root: Path, *options: object, limit: str = "") -> None:
        self.root = root
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://localhost:{self.port}"
        words = [sys.executable, "-m", "service", "--port", str(self.port)]
        words += ["--grpc-port", "0"]
        words += ["--state-dir", str(root / "state")]
        words += ["--model-base-path", str(root / "models"), *map(str, options)]
        self._command = (
            words if not limit else ["sh", "-c", f'{limit}; exec "$@"', "sh", *words]
        )
        self.process: subprocess.Popen[str]

    def start(self) -> "Service":
        self.process = subprocess.Popen(
            self._command,
            cwd=REPOSITORY,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "KERASNORM_EPOCHS": "1"},  # no option of a submitted job
        )
        try:
            wait_until(self.answers)
        except BaseException:
            self.process.kill()
            raise
        return self

    def answers(self) -> bool:
        assert self.process.poll() is None, self.process.communicate()[1]
        try:
            return requests.get(f"{self.url}{self.asked}", timeout=SECONDS).ok
        except (requests.ConnectionError, requests.Timeout):
            return False

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.communicate()

    def stop(self) -> None:
        """SIGTERM, as Ctrl-C."""
        self.process.terminate()
        self.process.communicate(timeout=60)

    def submit(self, config: Mapping[str, object]) -> int:
        answer = requests.post(f"{self.url}/v1/jobs", json=config, timeout=SECONDS)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

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

    def run(self, job: int) -> Path:
        """The directory of a job's run."""
        return self.root / "state" / "runs" / str(job)

    def trainer(self, job: int) -> int | None:
        """The process that trains for a job."""
        found = processes(self.run(job))
        assert len(found) <= 1  # none runs twice
        return found[0].pid if found else None


def wait_until(condition: Callable[[], object], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
