"""Jobs in a storm of SIGKILLs at random moments: all end as if nothing had happened.

The whole storm: STORM_JOBS=10 STORM_KILLS=20 make test-endurance ARGS="-k storm".
"""

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.service.services import CONFIG, Service, command_line, wait_until
from tests.training.runs import assert_same_end

JOBS = int(os.environ.get("STORM_JOBS", "4"))
KILLS = int(os.environ.get("STORM_KILLS", "8"))

pytestmark = pytest.mark.endurance


@pytest.fixture
def service(tmp_path: Path, pictures: Path) -> Iterator[Service]:
    # Trainers that are killed while they start finish no epoch.
    options = ("--data-root", pictures.parent, "--retries", KILLS)
    service = Service(tmp_path, *options).start()
    yield service
    service.stop()


def configs(pictures: Path) -> list[dict[str, object]]:
    dataset = f"folder:{pictures}"
    return [
        {**CONFIG, "norm": True, "epochs": 30, "dataset": dataset, "seed": seed}
        for seed in range(JOBS)
    ]


def trainers(service: Service) -> list[int]:
    """The processes that train now."""
    jobs = [job["id"] for job in service.get("?state=running")["jobs"]]
    return [process for job in jobs if (process := service.trainer(job))]


def test_jobs_survive_a_storm_of_kills(
    service: Service,
    pictures: Path,
    run_train_py: Callable[..., object],
    tmp_path: Path,
) -> None:
    jobs = [service.submit(config) for config in configs(pictures)]
    moments = random.Random(0)
    killed = {"trainer": 0, "service": 0}
    while sum(killed.values()) < KILLS:
        # Sometimes several in a row, while a trainer is still being started.
        time.sleep(moments.choice([0, 0.3, moments.uniform(0.5, 6)]))
        if moments.random() < 0.5:
            wait_until(lambda: trainers(service))
            with contextlib.suppress(
                ProcessLookupError, IndexError
            ):  # it has just ended
                os.kill(trainers(service)[0], signal.SIGKILL)
                killed["trainer"] += 1
        else:
            service.kill()
            killed["service"] += 1
            time.sleep(moments.uniform(0, 3))
            service.start()
        states = [service.get(str(job))["state"] for job in jobs]
        assert not all(state == "succeeded" for state in states)
        assert states.count("running") <= 1
    print(killed)
    wait_until(
        lambda: all(service.get(str(job))["state"] == "succeeded" for job in jobs),
        seconds=600,
    )
    for seed, (job, config) in enumerate(zip(jobs, configs(pictures), strict=True)):
        own = tmp_path / f"undisturbed-{seed}"
        own.mkdir()
        options = command_line(config)
        run_train_py(*options, "--run-dir=r", "--export-dir=e", cwd=own)
        assert_same_end(own / "r" / "fashion", service.run(job))
