"""Which GPUs jobs get: what trainers' processes are given of lists that are made up."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.app import Settings, create_app
from service.jobs import runner
from service.jobs.gpus import Gpus, gpus_of
from service.jobs.job_queue import Queue
from service.jobs.store import Job, State
from service.page.job_view import heading
from service.serving.routes import Serving
from tests.service.conftest import URL
from tests.service.jobs.test_trainers import run_instead
from tests.service.services import QueueProcess, wait_until
from training.config import TrainConfig
from training.errors import UserError

# Tells what it was given, and ends when it is told to, as after a mistake.
STAND_IN = """
import json, os, sys, time
run = sys.argv[1]
with open(f"{run}/new", "w") as file:
    json.dump(dict(os.environ), file)
os.rename(f"{run}/new", f"{run}/given")
while not os.path.exists(f"{run}/end"):
    time.sleep(0.01)
sys.exit(2)
"""
GROWTH = "TF_FORCE_GPU_ALLOW_GROWTH"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_SECONDS_BETWEEN_LOOKS", 0.01)
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", GROWTH):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def begin(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Queue]]:
    """Make a queue of stand-ins with these GPUs; at the end it stops its trainers."""
    run_instead(monkeypatch, STAND_IN)
    queues: list[Queue] = []

    def make(gpus: Gpus, slots: int = 9) -> Queue:
        queues.append(Queue(replace(settings.jobs, gpus=gpus, slots=slots)))
        return queues[-1]

    yield make
    for queue in queues:
        queue.stop()


def add(queue: Queue, gpus: int | None = None, priority: int = 0) -> Job:
    return queue.store.add(queue.roots.confine(TrainConfig()), priority, gpus)


def found(queue: Queue, job: Job) -> Job:
    now = queue.store.get(job.id)
    assert now
    return now


def given(run: Path) -> dict[str, str]:
    """The environment of the trainer in a run's directory, once it has started."""
    wait_until((run / "given").exists)
    return json.loads((run / "given").read_text())


def visible(job: Job) -> str | None:
    return given(job.directory).get("CUDA_VISIBLE_DEVICES")


def end(queue: Queue, job: Job) -> None:
    (job.directory / "end").touch()
    wait_until(lambda: found(queue, job).state is State.FAILED)


def test_no_two_jobs_share_a_gpu(begin: Callable[..., Queue]) -> None:
    queue = begin(Gpus(("0", "1", "2", "3")))
    jobs = [add(queue, gpus) for gpus in (None, 2, 0, 1, 1)]
    queue.start()
    assert [visible(job) for job in jobs[:4]] == ["0", "1,2", "-1", "3"]
    environment = given(jobs[1].directory)
    assert environment[GROWTH] == "true"
    assert environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert GROWTH not in given(jobs[2].directory)
    wait_until(lambda: found(queue, jobs[4]).message == "Waits for GPUs: 1.")
    assert [found(queue, job).devices for job in jobs] == [
        *(("0",), ("1", "2"), (), ("3",), ()),
    ]
    end(queue, jobs[1])
    assert visible(jobs[4]) == "1"
    assert found(queue, jobs[4]).message == ""
    assert "GPU 1, 2</div>" in heading(found(queue, jobs[1]))
    assert "GPU" not in heading(found(queue, jobs[2]))


def test_a_job_that_waits_for_gpus_is_overtaken_by_none(
    begin: Callable[..., Queue],
) -> None:
    """Else jobs of one GPU could keep one of two waiting for ever."""
    queue = begin(Gpus(("0", "1")))
    first, small, none = add(queue), add(queue), add(queue, 0)
    large = add(queue, 2, priority=5)
    queue.store.start(first, attempts=1, epochs=0, devices=["1"])  # before it came
    queue.start()
    assert visible(first) == "1"  # it had died; it keeps its own
    wait_until(lambda: found(queue, large).message == "Waits for GPUs: 2.")
    assert {found(queue, job).state for job in (small, none)} == {State.QUEUED}
    end(queue, first)
    assert visible(large) == "0,1"
    wait_until(lambda: found(queue, small).message == "Waits for GPUs: 1.")
    assert found(queue, none).state is State.QUEUED
    end(queue, large)
    assert (visible(small), visible(none)) == ("0", "-1")


@pytest.mark.parametrize(
    ("gpus", "expected"), [(Gpus(None), "7"), (Gpus(()), "-1")], ids=["none", "cpu"]
)
def test_without_gpus_trainers_see_what_the_service_sees_or_nothing(
    begin: Callable[..., Queue],
    monkeypatch: pytest.MonkeyPatch,
    gpus: Gpus,
    expected: str,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    queue = begin(gpus)
    jobs = [add(queue), add(queue)]
    queue.start()
    assert [visible(job) for job in jobs] == [expected, expected]
    assert found(queue, jobs[0]).devices == ()


def test_a_job_goes_on_with_the_gpus_that_the_next_service_has(
    begin: Callable[..., Queue],
) -> None:
    """Each has one that the other needs: neither waits for the other."""
    queue = begin(Gpus(("1", "2")))
    jobs = [add(queue, 2), add(queue, 2), add(queue, 3)]
    for job, devices in zip(jobs, (["0", "1"], ["2", "3"], ["0"]), strict=True):
        queue.store.start(job, attempts=1, epochs=0, devices=devices)
    queue.start()
    wait_until(lambda: any((job.directory / "given").exists() for job in jobs))
    wait_until(lambda: found(queue, jobs[2]).state is State.FAILED)
    assert found(queue, jobs[2]).message == (
        "`gpus` must be at most 2, the number of GPUs that --devices gives to jobs. "
        "Received: 3."
    )
    one, other = sorted(jobs[:2], key=lambda job: not found(queue, job).devices)
    assert sorted(found(queue, one).devices) == ["1", "2"]
    assert found(queue, other).state is State.QUEUED
    end(queue, one)
    assert visible(other) == "1,2"


def test_gpus_are_still_those_of_the_trainers_that_outlive_a_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_instead(monkeypatch, STAND_IN)  # it is found by its command line
    options = {"slots": 3, "devices": "0,1,2", "stand_in": STAND_IN}
    queue = QueueProcess(tmp_path, **options)
    try:
        queue.start()
        one, two = queue.submit({}), queue.submit({}, gpus=2)
        seen = [given(queue.run(n))["CUDA_VISIBLE_DEVICES"] for n in (one, two)]
        assert seen == ["0", "1,2"]
        trainer = queue.trainer(two)
        assert trainer is not None
        queue.kill()
        queue.start()
        three = queue.submit({})
        wait_until(lambda: queue.job(three).message == "Waits for GPUs: 1.")
        assert queue.trainer(two) == trainer
        (queue.run(one) / "given").unlink()
        queue.kill_trainer(one)
        assert given(queue.run(one))["CUDA_VISIBLE_DEVICES"] == "0"
        assert queue.job(three).state is State.QUEUED
        (queue.run(one) / "end").touch()
        assert given(queue.run(three))["CUDA_VISIBLE_DEVICES"] == "0"
        assert queue.trainer(two) == trainer
    finally:
        queue.end()


@pytest.mark.parametrize(
    ("gpus", "asked", "complaint"),
    [
        (Gpus(None), 1, "0, since this service has no GPUs for jobs (--devices)"),
        (Gpus(()), 2, "0, since this service has no GPUs for jobs (--devices)"),
        (
            Gpus(("4", "6")),
            3,
            "at most 2, the number of GPUs that --devices gives to jobs",
        ),
    ],
)
def test_a_job_that_asks_for_more_than_there_are_is_refused_in_one_line(
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    gpus: Gpus,
    asked: int,
    complaint: str,
) -> None:
    caplog.set_level("WARNING", "uvicorn.error")
    jobs = replace(settings.jobs, gpus=gpus)
    app = create_app(replace(settings, jobs=jobs), Serving(settings.serving))
    client = TestClient(app, base_url=URL)
    answer = client.post(f"/v1/jobs?gpus={asked}", json={})
    assert answer.status_code == 422
    (detail,) = answer.json()["detail"]
    assert detail["loc"] == ["query", "gpus"]
    assert detail["msg"] == f"`gpus` must be {complaint}. Received: {asked}."
    assert [record.getMessage() for record in caplog.records][-1:] == [
        f"A job is refused: {detail['msg']}"
    ]
    for wrong in ("-1", "1001", "x"):
        assert client.post(f"/v1/jobs?gpus={wrong}", json={}).status_code == 422
    assert client.get("/v1/jobs").json()["total"] == 0
    right = client.post(f"/v1/jobs?gpus={gpus.most}", json={"seed": [1, 2]})
    assert right.status_code == 201
    job = client.get("/v1/jobs").json()["jobs"][1]
    assert (job["gpus"], job["devices"]) == (gpus.most, [])
    app.state.queue.store.start(
        app.state.queue.store.next(1)[0], attempts=1, epochs=0, devices=("4",)
    )
    assert client.get("/v1/jobs/1").json()["devices"] == ["4"]


def test_gpus_that_ray_counts_are_not_counted_here() -> None:
    gpus = Gpus(are_elsewhere=True)
    assert (gpus.number(None), gpus.number(64), gpus.complaint(64)) == (0, 64, "")


def pretend(monkeypatch: pytest.MonkeyPatch, directory: Path, script: str) -> None:
    """Put an nvidia-smi before all others that there are."""
    program = directory / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory), prepend=":")


@pytest.mark.parametrize(
    ("variable", "names"),
    [
        (None, ("0", "1", "10")),
        ("10,0", ("10", "0")),
        ("1, 5, 0", ("1",)),  # CUDA stops at the first that is none
        ("MIG-7c2e,GPU-52", ("MIG-7c2e", "GPU-52")),
        ("", None),
        ("-1", None),
    ],
)
def test_auto_is_what_nvidia_smi_lists_and_the_environment_leaves(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    variable: str | None,
    names: tuple[str, ...] | None,
) -> None:
    right = '"$*" = "--query-gpu=index --format=csv,noheader"'
    pretend(monkeypatch, tmp_path, f"[ {right} ] && printf '0\\n1\\n10\\n'")
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert gpus_of("auto") == Gpus(names)
    assert gpus_of("cpu") == Gpus(())
    assert gpus_of("10,1") == Gpus(("10", "1"))
    with pytest.raises(UserError) as caught:
        gpus_of("1,2")
    assert str(caught.value) == (
        "`--devices` must be GPUs of this machine, which has 0,1,10. Received: 1,2."
    )


@pytest.mark.parametrize("script", ["exit 9", "echo No devices were found; exit 6", ""])
def test_where_nvidia_smi_lists_none_auto_is_none_and_a_list_is_believed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str
) -> None:
    pretend(monkeypatch, tmp_path, script)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert gpus_of("auto") == Gpus(None)
    assert gpus_of("0,3") == Gpus(("0", "3"))
