"""The whole service, with real trainers: from its start to its end."""

import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import requests

from service import __main__
from tests.service.services import CONFIG, Service, command_line, wait_until

SHORT = {**CONFIG, "epochs": 1, "batch_size": 64}


@pytest.fixture
def service(tmp_path: Path, pictures: Path) -> Iterator[Service]:
    options = ("--data-root", pictures.parent, "--slots", 2, "--timeout", 1)
    service = Service(tmp_path, *options).start()
    yield service
    service.end()


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


def test_a_service_from_its_first_job_to_its_end(
    service: Service,
    pictures: Path,
    run_train_py: Callable[..., "CompletedProcess[str]"],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = {**SHORT, "dataset": f"folder:{pictures}"}
    refuse_another_on_the_same_state(service, monkeypatch, capsys)
    outlive_the_service(service, config)
    job = submit_with_train_py(service, config, run_train_py, tmp_path)
    tell_all_about_a_job(service, job, pictures)
    end_while_a_client_does_not_read(service, 1)
    nobody = run_train_py("--submit", service.url, cwd=tmp_path)
    assert nobody.returncode == 2
    assert "`--submit` must be the address of a service that runs" in nobody.stderr
    assert nobody.stderr.count("\n") == 1


def refuse_another_on_the_same_state(
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = service.root / "state"
    options = ["--state-dir", str(state), "--model-base-path", f"{service.root}/models"]
    monkeypatch.setattr(sys, "argv", ["service", *options])
    assert __main__.main() == 2
    assert capsys.readouterr().err == (
        f"error: Another service uses {state}. Stop it, or give this one another "
        "--state-dir.\n"
    )


def outlive_the_service(service: Service, config: dict[str, Any]) -> None:
    """Two jobs of a sweep train in two slots while the service is killed."""
    sweep = requests.post(
        f"{service.url}/v1/jobs",
        json={**config, "learning_rate": [1e-3, 1e-9]},
        timeout=60,
    ).json()
    jobs = [row["job"] for row in sweep["rows"]]
    wait_until(lambda: all(map(service.trainer, jobs)))
    assert {service.get(str(job))["state"] for job in jobs} == {"running"}
    with service.held(jobs[0]) as first, service.held(jobs[1]) as second:
        service.kill()
        service.start()
        assert [service.trainer(job) for job in jobs] == [first, second]
        assert {service.get(str(job))["state"] for job in jobs} == {"running"}
    for job in jobs:
        service.wait_for(job, "succeeded")
        log = (service.run(job) / "log.txt").read_text()
        assert "started again" not in log
    url = f"{service.url}/v1/sweeps/{sweep['id']}"
    sweep = requests.get(url, timeout=60).json()
    assert [row["values"]["learning_rate"] for row in sweep["rows"]] == [1e-3, 1e-9]
    accuracy = [row["validation"]["accuracy"] for row in sweep["rows"]]
    assert accuracy[0] > accuracy[1]
    assert sweep["best"] == jobs[0]
    for job, rate in zip(jobs, ("0.001", "1e-09"), strict=True):
        name = service.get(str(job))["name"]
        assert name == f"fashion-learning_rate-{rate}"
        assert service.versions(name) == ["1"]


def submit_with_train_py(
    service: Service,
    config: dict[str, Any],
    run_train_py: Callable[..., "CompletedProcess[str]"],
    directory: Path,
) -> int:
    """The job's output and end are those of train.py; a mistake is one line."""
    shutil.copytree(
        service.root / "models" / "fashion-learning_rate-0.001",
        service.root / "models" / "fashion",
    )
    options = command_line(config)
    process = run_train_py("--submit", service.url, *options, cwd=directory)
    assert process.returncode == 0, process.stderr
    job = service.get("?limit=1")["jobs"][0]["id"]
    log = (service.run(job) / "log.txt").read_text()
    first, rest = process.stdout.split("\n", 1)
    assert first.endswith(f"curl -X POST {service.url}/v1/jobs/{job}/cancel")
    assert rest == f"{log}The job: succeeded.\n"
    given = service.get(str(job))["config"]
    assert {name: given[name] for name in config} == config
    assert service.versions() == ["1", "2"]

    wrong = run_train_py("--submit", service.url, "--run-dir=/etc", cwd=directory)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith(f"error: {service.url} does not take the job: ")
    assert "`run_dir` must be" in wrong.stderr
    assert wrong.stderr.count("\n") == 1
    return job


def tell_all_about_a_job(service: Service, job: int, pictures: Path) -> None:
    """While it is there; then it is deleted."""
    details = service.get(str(job))
    assert details["state"] == "succeeded"
    assert details["started"] >= details["submitted"]
    assert details["ended"] > details["started"]
    assert (details["progress"]["epoch"], details["progress"]["epochs"]) == (1, 1)
    (row,) = service.get(f"{job}/metrics")
    assert row == details["metrics"]
    assert details["result"]["metrics"].keys() == {"train", "validation", "test"}
    assert details["result"]["export"] == str(service.root / "models" / "fashion" / "2")

    url = f"{service.url}/v1/jobs/{job}"
    log = requests.get(f"{url}/logs", timeout=60).text
    tenth = len(list(pictures.rglob("*.png"))) // 10
    sizes = f"{8 * tenth} train, {tenth} validation, {tenth} test images"
    assert sizes in log.replace("\n", " ")
    events = follow(service, job)
    assert "\n".join(event["data"] for event in events) == f"{log}succeeded"
    assert events[-1] == {"event": "end", "data": "succeeded"}
    assert follow(service, job, events[4]["id"]) == events[5:]

    curves = requests.get(f"{url}/artifacts/curves.png", timeout=60)
    assert curves.content.startswith(b"\x89PNG")
    assert requests.delete(url, timeout=60).status_code == 204
    assert not service.run(job).exists()
    assert service.versions() == ["1", "2"]


def end_while_a_client_does_not_read(service: Service, job: int) -> None:
    with (service.run(job) / "large").open("wb") as file:
        file.truncate(2**30)
    with socket.create_connection(("127.0.0.1", service.port)) as client:
        path = f"/v1/jobs/{job}/artifacts/large".encode()
        client.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
        service.stop()
    assert service.process.returncode == 0
