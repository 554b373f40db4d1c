"""Jobs that are killed, in whatever process, end as if they had not been."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import requests

from tests.conftest import REPOSITORY
from tests.service.services import Service, wait_until
from tests.training.test_job import assert_same_end

# 120 steps an epoch are long enough to be hit in the middle, 30 epochs to outlast the
# start of a service.
CONFIG = {
    "model": "mlp",
    "epochs": 30,
    "batch_size": 4,
    "learning_rate": 3e-4,
    "validation_split": 0.1,
    "name": "fashion",
}
SHORT = {**CONFIG, "epochs": 1, "batch_size": 64}

Begin = Callable[..., Service]


@pytest.fixture
def begin(pictures: Path, tmp_path: Path) -> Iterator[Begin]:
    """Starts a service; whatever of it still runs at the end is killed."""
    services: list[Service] = []

    def start(*options: object, limit: str = "") -> Service:
        root = "--data-root", pictures.parent
        services.append(Service(tmp_path, *root, *options, limit=limit))
        return services[-1].start()

    yield start
    for service in services:
        if service.process.poll() is None:
            service.kill()
    for process in psutil.process_iter(["cmdline"]):
        if any(str(tmp_path) in word for word in process.info["cmdline"] or ()):
            process.kill()


@pytest.fixture(scope="module")
def undisturbed(
    run_train_py: Callable[..., "subprocess.CompletedProcess[str]"],
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
def config(pictures: Path) -> dict[str, object]:
    return {**CONFIG, "dataset": f"folder:{pictures}"}


@pytest.fixture
def short(pictures: Path) -> dict[str, object]:
    return {**SHORT, "dataset": f"folder:{pictures}"}


def epochs(service: Service, job: int) -> int:
    return len(service.get(f"{job}/metrics"))


def kill_trainer(service: Service, job: int, number: int = signal.SIGKILL) -> None:
    process = service.trainer(job)
    assert process is not None
    os.kill(process, number)
    wait_until(lambda: service.trainer(job) != process)


def versions(service: Service, name: str = "fashion") -> list[str]:
    directory = service.root / "models" / name
    return sorted(p.name for p in directory.iterdir()) if directory.exists() else []


def follow(service: Service, job: int, last: str = "0") -> list[dict[str, str]]:
    """The server-sent events of a job's log, to their end."""
    headers = {"Accept": "text/event-stream", "Last-Event-ID": last}
    url = f"{service.url}/v1/jobs/{job}/logs"
    blocks = requests.get(url, headers=headers, timeout=100).text.split("\n\n")
    return [
        dict(line.split(": ", 1) for line in block.splitlines())
        for block in blocks
        if block and not block.startswith(":")
    ]


def test_a_job_from_its_submission_to_its_end(
    begin: Begin, short: dict[str, object]
) -> None:
    service = begin()
    job = service.submit(short)
    events = follow(service, job)
    details = service.get(str(job))
    assert details["state"] == "succeeded"
    assert details["started"] >= details["submitted"]
    assert details["ended"] > details["started"]
    assert (details["progress"]["epoch"], details["progress"]["epochs"]) == (1, 1)
    (row,) = service.get(f"{job}/metrics")
    assert row == details["metrics"]
    assert details["result"]["metrics"].keys() == {"train", "validation", "test"}
    assert versions(service) == ["1"]
    assert details["result"]["export"] == str(service.root / "models" / "fashion" / "1")

    log = requests.get(f"{service.url}/v1/jobs/{job}/logs", timeout=5).text
    assert "480 train, 60 validation, 60 test images" in log.replace("\n", " ")
    assert "\n".join(event["data"] for event in events) == f"{log}succeeded"
    assert events[-1] == {"event": "end", "data": "succeeded"}
    assert follow(service, job, events[4]["id"]) == events[5:]

    curves = f"{service.url}/v1/jobs/{job}/artifacts/curves.png"
    assert requests.get(curves, timeout=5).content.startswith(b"\x89PNG")
    deleted = requests.delete(f"{service.url}/v1/jobs/{job}", timeout=5)
    assert deleted.status_code == 204
    assert not service.run(job).exists()
    assert versions(service) == ["1"]


def test_a_job_outlives_its_trainer_and_its_service(
    begin: Begin, config: dict[str, object], undisturbed: Path
) -> None:
    service = begin()
    job, second = service.submit(config), service.submit({**config, "epochs": 1})
    wait_until(lambda: epochs(service, job) >= 1)
    kill_trainer(service, job)

    # The trainer dies; another one goes on with the run.
    wait_until(lambda: service.trainer(job))
    assert service.get(str(job))["state"] == "running"
    wait_until(lambda: epochs(service, job) >= 2)

    # The service dies; the trainer that lives on is adopted.
    trainer = service.trainer(job)
    service.kill()
    service.start()
    assert service.trainer(job) == trainer
    assert service.get(str(job))["state"] == "running"
    assert service.get(str(second))["state"] == "queued"

    # Both die; a damaged checkpoint is left.
    wait_until(lambda: epochs(service, job) >= 3)
    kill_trainer_and_service(service, job)
    checkpoints = service.run(job) / "checkpoints"
    indices = checkpoints.glob("ckpt-*.index")
    last = max(int(index.stem.removeprefix("ckpt-")) for index in indices)
    newest = checkpoints / f"ckpt-{last}.data-00000-of-00001"
    damaged = bytearray(newest.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    newest.write_bytes(damaged)
    service.start()
    assert service.get(str(second))["state"] == "queued"

    service.wait_for(job, "succeeded")
    service.wait_for(second, "succeeded")
    assert_same_end(undisturbed, service.run(job))
    log = (service.run(job) / "log.txt").read_text()
    assert log.count("The trainer died; it is started again.") == 2
    assert log.count("is damaged; going back to the one before it") == 1
    assert versions(service) == ["1", "2"]


def test_a_trainer_is_seen_from_its_first_moment(
    begin: Begin, config: dict[str, object]
) -> None:
    """Long before it has imported TensorFlow, by services that start meanwhile."""
    service = begin("--retries", 0)
    job = service.submit({**config, "epochs": 1000})
    wait_until(lambda: service.trainer(job))
    trainer = service.trainer(job)
    for _ in range(3):
        service.kill()
        service.start()
        assert service.trainer(job) == trainer
    assert service.get(str(job))["state"] == "running"
    service.post(f"{job}/cancel")
    service.wait_for(job, "cancelled")
    assert service.trainer(job) is None
    assert "started again" not in (service.run(job) / "log.txt").read_text()


def test_jobs_wait_while_runs_cannot_be_written(
    begin: Begin, short: dict[str, object]
) -> None:
    service = begin()
    runs = service.root / "state" / "runs"
    runs.touch()  # a file where the directory belongs
    job = service.submit(short)
    wait_until(lambda: service.get(str(job))["message"])
    waiting = service.get(str(job))
    assert waiting["state"] == "queued"
    assert waiting["message"].startswith("Waits, because: ")
    runs.unlink()
    assert service.wait_for(job, "succeeded")["message"] == ""


def test_a_trainer_by_hand_and_one_of_the_service_never_meet(
    begin: Begin,
    config: dict[str, object],
    run_train_py: Callable[..., "subprocess.CompletedProcess[str]"],
    tmp_path: Path,
) -> None:
    service = begin()
    job = service.submit({**config, "epochs": 1000})
    wait_until(lambda: service.trainer(job))
    by_hand = run_train_py("--resume", service.run(job), "--epochs=1000", cwd=tmp_path)
    assert by_hand.returncode == 2
    assert by_hand.stderr.startswith("error: Another process is training in ")
    assert service.get(str(job))["state"] == "running"


def kill_trainer_and_service(service: Service, job: int) -> None:
    trainer = service.trainer(job)
    service.kill()
    assert trainer is not None
    os.kill(trainer, signal.SIGKILL)
    wait_until(lambda: service.trainer(job) is None)


def test_a_job_is_stopped_and_resumed(
    begin: Begin, config: dict[str, object], undisturbed: Path
) -> None:
    service = begin()
    job = service.submit(config)
    wait_until(lambda: epochs(service, job) >= 1)
    service.post(f"{job}/cancel")
    assert service.wait_for(job, "cancelled")["ended"]
    assert service.trainer(job) is None
    service.post(f"{job}/resume")
    wait_until(lambda: epochs(service, job) >= 2)

    # Told to stop by someone else.
    kill_trainer(service, job, signal.SIGTERM)
    service.wait_for(job, "interrupted")

    # A service that starts goes on with what was interrupted; one that stops puts
    # its jobs back in the queue.
    service.stop()
    service.start()
    wait_until(lambda: epochs(service, job) >= 3)
    service.stop()
    assert service.trainer(job) is None
    service.start()
    service.wait_for(job, "succeeded")
    assert_same_end(undisturbed, service.run(job))
    assert versions(service) == ["1"]


def test_a_trainer_that_keeps_dying_fails_with_the_end_of_its_log(
    begin: Begin, config: dict[str, object]
) -> None:
    service = begin("--retries", 1)
    job = service.submit({**config, "batch_size": 1, "epochs": 1000})
    for _ in range(2):
        wait_until(lambda: service.trainer(job))
        kill_trainer(service, job)
    message = service.wait_for(job, "failed")["message"]
    first, *lines = message.splitlines()
    assert first == (
        "The trainer died 2 times without finishing an epoch. Its last lines:"
    )
    assert "The trainer died; it is started again." in lines


def test_a_run_whose_directory_is_removed_fails_and_can_begin_again(
    begin: Begin, config: dict[str, object], undisturbed: Path
) -> None:
    service = begin()
    job = service.submit(config)
    wait_until(lambda: epochs(service, job) >= 1)
    shutil.rmtree(service.run(job))
    failed = service.wait_for(job, "failed")
    assert failed["message"] == f"{service.run(job)} has been removed."
    assert failed["metrics"] is None
    service.post(f"{job}/resume")
    service.wait_for(job, "succeeded")
    assert_same_end(undisturbed, service.run(job))


def test_a_full_disk_fails_the_job_and_loses_nothing(
    begin: Begin, config: dict[str, object], undisturbed: Path
) -> None:
    """A limit on the size of files stands for the disk."""
    service = begin(limit="ulimit -f 2000")  # blocks of 512 bytes: 1 MB
    job = service.submit(config)
    failed = service.wait_for(job, "failed")
    assert "The checkpoint of epoch 1 could not be written" in failed["message"]
    assert "File too large" in failed["message"]
    service.stop()
    service = begin()
    service.post(f"{job}/resume")
    service.wait_for(job, "succeeded")
    assert_same_end(undisturbed, service.run(job))


def test_a_mistake_fails_at_once_with_its_line(begin: Begin) -> None:
    service = begin()
    job = service.submit({"dataset": "fashion_mnits"})
    message = service.wait_for(job, "failed")["message"]
    assert message.startswith("error: ")
    assert message.count("\n") == 0


def test_two_jobs_run_in_two_slots_and_a_sweep_is_compared(
    begin: Begin, short: dict[str, object]
) -> None:
    service = begin("--slots", 2)
    answer = requests.post(
        f"{service.url}/v1/jobs",
        json={**short, "learning_rate": [1e-3, 1e-9]},
        timeout=5,
    ).json()
    jobs = [row["job"] for row in answer["rows"]]
    wait_until(lambda: {service.get(str(job))["state"] for job in jobs} == {"running"})
    for job in jobs:
        service.wait_for(job, "succeeded")
    url = f"{service.url}/v1/sweeps/{answer['id']}"
    sweep = requests.get(url, timeout=5).json()
    assert [row["values"]["learning_rate"] for row in sweep["rows"]] == [1e-3, 1e-9]
    accuracy = [row["validation"]["accuracy"] for row in sweep["rows"]]
    assert accuracy[0] > accuracy[1]
    assert sweep["best"] == jobs[0]
    for job, rate in zip(jobs, ("0.001", "1e-09"), strict=True):
        name = service.get(str(job))["name"]
        assert name == f"fashion-learning_rate-{rate}"
        assert versions(service, name) == ["1"]


def test_a_second_service_on_the_same_state_refuses(begin: Begin) -> None:
    service = begin()
    second = subprocess.run(
        [sys.executable, "-m", "service", "--state-dir", str(service.root / "state")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert second.returncode == 2
    assert second.stderr == (
        f"error: Another service uses {service.root / 'state'}. Stop it, or give this "
        "one another --state-dir.\n"
    )


def test_other_machines_need_a_token(tmp_path: Path) -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "service", "--host", "0.0.0.0"],
        cwd=REPOSITORY,
        env={k: v for k, v in os.environ.items() if k != "KERASNORM_TOKEN"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert refused.returncode == 2
    assert refused.stderr.startswith(
        "error: `--host 0.0.0.0` can be reached from other"
    )
    assert refused.stderr.count("\n") == 1


def test_train_py_submits_and_follows(
    begin: Begin,
    short: dict[str, object],
    pictures: Path,
    run_train_py: Callable[..., "subprocess.CompletedProcess[str]"],
    tmp_path: Path,
) -> None:
    service = begin()
    options = [f"--{k.replace('_', '-')}={value}" for k, value in short.items()]
    process = run_train_py("--submit", service.url, *options, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    log = (service.run(1) / "log.txt").read_text()
    first, rest = process.stdout.split("\n", 1)
    assert first.endswith(f"curl -X POST {service.url}/v1/jobs/1/cancel")
    assert rest == f"{log}The job: succeeded.\n"
    config = service.get("1")["config"]
    assert {name: config[name] for name in short} == short

    wrong = run_train_py("--submit", service.url, "--run-dir=/etc", cwd=tmp_path)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith(f"error: {service.url} does not take the job: ")
    assert "`run_dir` must be" in wrong.stderr
    assert wrong.stderr.count("\n") == 1
    service.stop()
    nobody = run_train_py("--submit", service.url, cwd=tmp_path)
    assert nobody.returncode == 2
    assert "`--submit` must be the address of a service that runs" in nobody.stderr
    assert nobody.stderr.count("\n") == 1
