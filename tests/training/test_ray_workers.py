"""Training on a Ray cluster, here of several nodes on one machine."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kerasnorm.replicas import free_addresses
from tests.training.cluster.test_team import arguments, environment
from tests.training.runs import history
from training import ray_workers
from training.cli.command_line import read
from training.errors import UserError

pytest.importorskip("ray", reason="Ray is not installed: pip install --group ray")

CLUSTER = """
import sys
from ray.cluster_utils import Cluster

head = {"num_cpus": 0, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=head)
for _ in range(3):
    cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture
def cluster() -> Iterator[str]:
    """A head without room for a worker, and three nodes with room for one each."""
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()


def parent(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"^PPid:\s+(\d+)$", status, re.MULTILINE)[1])


def test_a_run_goes_on_when_a_node_dies(
    cluster: str, pictures: Path, tmp_path: Path
) -> None:
    """That of the chief; its worker starts again on the node that was left over."""
    run = tmp_path / "runs" / "fashion"
    with (
        (tmp_path / "output").open("w") as output,
        subprocess.Popen(
            [
                *(sys.executable, "train.py", "--ray", cluster, "--workers", "2"),
                *map(str, arguments(pictures)),
                *("--run-dir", run.parent, "--export-dir", tmp_path / "exports"),
            ],
            cwd=Path(__file__).parents[2],
            env=environment(),
            stdout=output,
            stderr=output,
        ) as process,
    ):
        deadline = time.monotonic() + 300
        while not (run / "checkpoints" / "ckpt-2.index").exists():
            assert process.poll() is None, (tmp_path / "output").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        chief = int((run / ".pid").read_text())
        for part_of_the_node in (parent(chief), chief):
            os.kill(part_of_the_node, signal.SIGKILL)
        assert process.wait(timeout=400) == 0, (tmp_path / "output").read_text()
    second_chief = int((run / ".pid").read_text())
    assert second_chief != chief
    # The nodes share the machine's log files, so a line may come several times.
    begun = re.findall(r"pid=(\d+)\S* Epoch (\d+)/8", (tmp_path / "output").read_text())
    first_epochs = {
        process: min(int(e) for p, e in begun if int(p) == process)
        for process in (chief, second_chief)
    }
    assert first_epochs[chief] == 1
    assert first_epochs[second_chief] > 2
    epochs = [int(row["epoch"]) for row in history(run)]
    assert epochs == list(range(1, len(epochs) + 1))
    assert (tmp_path / "exports" / "fashion" / "1" / "saved_model.pb").exists()


def test_an_address_without_a_cluster_is_named(
    run_train_py: Callable[..., "subprocess.CompletedProcess[str]"], tmp_path: Path
) -> None:
    (address,) = free_addresses(1)
    process = run_train_py("--ray", address, "--workers", 2, cwd=tmp_path)
    assert process.returncode == 2
    *_, line = process.stderr.splitlines()
    assert line == (
        "error: `--ray` must be the address of a Ray cluster. "
        f"Received: {address}: no answer."
    )


def test_a_cluster_that_does_not_start_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def init(*_: object, **__: object) -> None:
        raise Exception("The current node timed out during startup.")  # as Ray does

    monkeypatch.setattr("ray.init", init)
    with pytest.raises(UserError, match="Received: local: The current node timed out"):
        ray_workers.connect("local", "--address")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("--ray auto", "`--ray` and `--workers` belong together"),
        ("--workers 2", "`--ray` and `--workers` belong together"),
        ("--ray auto --workers 2 --distribute mirrored", "Received: mirrored"),
        ("--ray auto --workers 2 --submit http://a", "exclude each other"),
        ("--ray ray://head:10001 --workers 2", "`--ray` must match pattern"),
        ("--ray auto --workers 0", "`--workers` must be greater than or equal to 1"),
    ],
)
def test_options_that_do_not_fit(options: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        read(options.split())
