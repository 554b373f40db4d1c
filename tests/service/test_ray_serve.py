"""Models on Ray Serve, one of its replicas killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from tests.conftest import REPOSITORY
from tests.kerasnorm.replicas import free_addresses
from tests.service.services import wait_until
from tests.service.serving.served import save_scale

pytest.importorskip("ray.serve", reason="Ray is not installed: pip install --group ray")

REPLICA = "ray::ServeReplica:kerasnorm:models"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    save_scale(tmp_path / "models" / "m" / "1", 1)
    return tmp_path / "models"


@pytest.fixture
def url(base: Path) -> Iterator[str]:
    """That of the model `m` on a Ray of its own, with two replicas."""
    (address,) = free_addresses(1)
    port = address.rpartition(":")[2]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "service.ray_serve", "--port", port),
            *("--model-base-path", str(base)),
            *("--min-replicas", "2", "--max-replicas", "2"),
        ],
        cwd=REPOSITORY,
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    url = f"http://localhost:{port}/v1/models/m"

    def answers() -> bool:
        assert process.poll() is None, process.communicate()[1]
        try:
            return requests.get(url, timeout=5).ok
        except (requests.ConnectionError, requests.Timeout):
            return False

    try:
        wait_until(answers)
        yield url
    finally:
        process.terminate()
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert not replicas()


def replicas() -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if (process.info["cmdline"] or [""])[0].startswith(REPLICA)
    ]


def scaled(url: str) -> float:
    answer = requests.post(f"{url}:predict", data='{"instances": [3.0]}', timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"][0]


def test_replicas_answer_as_the_service_does(url: str, base: Path) -> None:
    assert {scaled(url) for _ in range(20)} == {3.0}
    wrong = requests.post(f"{url}:predict", data='{"inputs": ["x"]}', timeout=30)
    assert (wrong.status_code, wrong.json()) == (
        400,
        {"error": 'JSON Value: "x" Type: String is not of expected type: float'},
    )
    elsewhere = requests.get(url, headers={"Host": "example.com"}, timeout=30)
    assert elsewhere.status_code == 403

    # Each replica watches the directory.
    save_scale(base / "m" / "2", 2)
    wait_until(lambda: {scaled(url) for _ in range(10)} == {6.0})

    # None of the requests that follow is lost, and the replica comes back.
    victim = replicas()[0]
    victim.send_signal(signal.SIGKILL)
    victim.wait(10)
    wait_until(lambda: len(replicas()) == 2)
    wait_until(lambda: {scaled(url) for _ in range(10)} == {6.0})


def test_a_cluster_that_is_not_there(base: Path) -> None:
    (address,) = free_addresses(1)
    process = subprocess.run(
        [
            *(sys.executable, "-m", "service.ray_serve", "--address", address),
            *("--model-base-path", str(base)),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (process.returncode, process.stderr) == (
        2,
        "error: `--address` must be the address of a Ray cluster. "
        f"Received: {address}: no answer.\n",
    )
