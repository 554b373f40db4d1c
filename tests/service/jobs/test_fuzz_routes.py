"""The API of the jobs as its OpenAPI describes it, with generated requests.

Over HTTP to a real server. Schemathesis checks every answer: no status 5xx, a status,
media type and body that are described, and a refusal of what is not described.
"""

from collections.abc import Iterator
from threading import Thread

import hypothesis
import psutil
import pytest
import requests
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given
from schemathesis import BaseSchema, GenerationMode
from schemathesis.specs.openapi import checks

from service.app import Settings, create_app
from service.http_protocol import HttpProtocol
from service.jobs import routes, sweep_routes
from service.jobs.job_queue import Queue, QueueConfig
from service.serving.config import ServingConfig
from service.serving.routes import Serving
from training.config import TrainConfig

EXAMPLES = 60  # of a call, right ones and wrong ones
SECONDS = 30  # that no answer takes
MOST_GROWTH = 2**25  # bytes, by fifty times the odd calls, which are two megabytes
JSON = {"Content-Type": "application/json"}
ODD: list[tuple[str, str, bytes]] = [
    ("POST", "/v1/jobs", b"x" * 2**20),
    ("POST", "/v1/jobs", b"[" * 2**15),
    ("POST", "/v1/jobs", b'{"seed": ' + b"9" * 2**15 + b"}"),
    ("POST", "/v1/jobs", b'{"name": "' + b"x" * 2**15 + b'"}'),
    ("POST", "/v1/jobs", b'{"dataset": "\xff"}'),
    ("POST", "/v1/jobs/1/resume", b"x" * 2**20),
    ("GET", "/v1/jobs/1/artifacts/" + "%2e%2e%2f" * 100, b""),
    ("GET", "/v1/jobs/1/artifacts/log.txt/" + "x/" * 1000, b""),
    ("GET", "/v1/jobs/1/artifacts/%00", b""),
    ("GET", "/v1/jobs/" + "9" * 1000, b""),
    ("GET", "/v1/jobs?limit=" + "9" * 1000, b""),
    ("GET", "/v1/jobs/1/logs", b""),
    ("GET", "/v1/jobs/1/artifacts/log.txt", b""),
    ("DELETE", "/v1/jobs/4", b""),
    ("DELETE", "/v1/sweeps/1", b""),
    ("PATCH", "/v1/jobs/1", b"{}"),
]

CALLS = [
    (method, route.path_format)
    for route in (*routes.routes.routes, *sweep_routes.routes.routes)
    for method in sorted(route.methods)
]

WITHOUT_ARGUMENTS = [("POST", "/v1/jobs/cancel")]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """That of a service which has some jobs and no runner that would start them."""
    root = tmp_path_factory.mktemp("fuzz")
    exports = root / "models"
    settings = Settings(ServingConfig(exports), QueueConfig(root / "state", exports))
    # Answers without an end of their own end at once.
    app = create_app(settings, Serving(settings.serving), lambda: True)
    queue = app.state.queue
    for seed in range(3):
        job = queue.store.add(settings_of(queue, seed), 0)
        job.directory.mkdir(parents=True)
        (job.directory / "log.txt").write_text("Epoch 1/4\n")
        (job.directory / "history.csv").write_text("epoch,loss\n1,nan\n")
    queue.store.add_sweep(["seed"], [settings_of(queue, seed) for seed in (4, 5)], 0)
    config = uvicorn.Config(
        app, port=0, lifespan="off", http=HttpProtocol, log_level="critical"
    )
    server = uvicorn.Server(config)
    thread = Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    (port,) = (s.getsockname()[1] for each in server.servers for s in each.sockets)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()
    queue.store.close()


def settings_of(queue: Queue, seed: int) -> TrainConfig:
    return queue.roots.confine(TrainConfig(model="mlp", seed=seed))


@pytest.fixture(scope="module")
def api(url: str) -> BaseSchema:
    return schemathesis.openapi.from_url(f"{url}/openapi.json")


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("method", "path"), CALLS)
def test_every_call_answers_as_it_is_described(
    api: BaseSchema, method: str, path: str, mode: GenerationMode
) -> None:
    if mode is GenerationMode.NEGATIVE and (method, path) in WITHOUT_ARGUMENTS:
        pytest.skip("there is nothing to get wrong")
    # The description cannot say which options contradict each other; and numbers may
    # come as text, as they do from the command line and the environment.
    excluded = (
        [checks.positive_data_acceptance, checks.negative_data_rejection]
        if (method, path) == ("POST", "/v1/jobs")
        else []
    )

    @given(case=api[path][method].as_strategy(generation_mode=mode))
    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    def call(case: schemathesis.Case) -> None:
        case.call_and_validate(excluded_checks=excluded, timeout=SECONDS)

    call()


def test_odd_calls_leave_nothing_behind(url: str) -> None:
    """Neither memory nor open files, nor a job."""
    session = requests.Session()
    process = psutil.Process()

    def call() -> None:
        for method, path, body in ODD:
            answer = session.request(
                method, url + path, data=body, headers=JSON, timeout=SECONDS
            )
            assert answer.status_code in range(200, 500), (method, path, answer.text)

    def total() -> int:
        return session.get(f"{url}/v1/jobs", timeout=SECONDS).json()["total"]

    for _ in range(10):
        call()
    jobs = total()  # the first call may have deleted one that was cancelled
    memory, files = process.memory_info().rss, process.num_fds()
    for _ in range(50):
        call()
    assert process.memory_info().rss < memory + MOST_GROWTH
    assert process.num_fds() <= files
    assert total() == jobs
