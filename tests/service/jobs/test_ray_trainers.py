"""Jobs of the service on a Ray cluster of several nodes, one of them killed."""

import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.service.services import CONFIG, Service, wait_until
from tests.training.runs import assert_same_end

pytest.importorskip("ray", reason="Ray is not installed: pip install --group ray")

RAY = Path(sys.executable).parent / "ray"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[int]]]:
    """The address of a cluster's dashboard, and the raylets of its two workers.

    The head has no processor to give, so jobs run on the workers, one on each. Ray is
    told of GPUs that are not there.
    """
    port, dashboard = free_port(), free_port()

    def start(*options: str) -> set[int]:
        before = raylets()
        started = subprocess.run(
            [RAY, "start", "--disable-usage-stats", *options],
            capture_output=True,
            text=True,
        )
        assert started.returncode == 0, started.stdout + started.stderr
        return raylets() - before

    # Ray enables tokens on a head where an earlier local cluster has left one.
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    # Not below tmp_path: the path of a socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="ray-") as root:
        try:
            start(
                *("--head", f"--port={port}", f"--dashboard-port={dashboard}"),
                *("--num-cpus=0", f"--temp-dir={root}"),
            )
            worker = (f"--address=127.0.0.1:{port}", "--num-cpus=1", "--num-gpus=3")
            workers = [start(*worker).pop() for _ in range(2)]
            yield f"http://127.0.0.1:{dashboard}", workers
        finally:
            # `ray stop` would stop any other cluster on this machine as well.
            for process in psutil.process_iter(["cmdline"]):
                if any(root in word for word in process.info["cmdline"] or ()):
                    process.kill()


def raylets() -> set[int]:
    return {p.pid for p in psutil.process_iter(["name"]) if p.info["name"] == "raylet"}


def node_of(process: int, workers: list[int]) -> int:
    """The raylet that a trainer runs below."""
    parents = {parent.pid for parent in psutil.Process(process).parents()}
    (raylet,) = parents & set(workers)
    return raylet


def test_jobs_on_a_cluster_survive_the_loss_of_a_node(
    cluster: tuple[str, list[int]], pictures: Path, tmp_path: Path
) -> None:
    address, workers = cluster
    service = Service(
        tmp_path,
        *("--data-root", pictures.parent, "--slots", 2),
        *("--executor", "ray", "--ray-address", address),
    ).start()
    config = {**CONFIG, "epochs": 30, "dataset": f"folder:{pictures}"}
    try:
        jobs = [service.submit({**config, "name": f"job{i}"}, gpus=2) for i in range(3)]
        wait_until(lambda: len(service.get(f"{jobs[0]}/metrics")) == 1)
        trainer = service.trainer(jobs[0])
        assert trainer is not None
        given = psutil.Process(trainer).environ()["CUDA_VISIBLE_DEVICES"]
        assert len(set(given.split(",")) & {"0", "1", "2"}) == 2
        assert service.get(str(jobs[0]))["gpus"] == 2
        node = psutil.Process(node_of(trainer, workers))
        for process in (node, *node.children(recursive=True)):
            process.send_signal(signal.SIGKILL)
        for job in jobs:
            service.wait_for(job, "succeeded")
    finally:
        service.stop()
    log = (service.run(jobs[0]) / "log.txt").read_text()
    assert "The trainer died; it is started again." in log
    for job in jobs[1:]:
        assert_same_end(service.run(jobs[0]), service.run(job))
