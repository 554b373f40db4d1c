"""Searches, with real studies and trainers that finish an epoch when they are told."""

import contextlib
import math
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.jobs import studies
from service.jobs.gpus import Gpus
from service.jobs.paths import Roots
from service.jobs.plan import plan_of
from service.jobs.removal import Retention
from service.jobs.runner import Runner
from service.jobs.search import Searches
from service.jobs.store import Job, State, Store
from service.jobs.table import Table
from service.jobs.trainers import End
from tests.conftest import REPOSITORY
from training.cli.command_line import load
from training.config import TrainConfig
from training.run.files import Metrics, Result, Scores, history, write_result

RANGES: dict[str, Any] = {
    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "dropout_rate": {"low": 0.1, "high": 0.6},
    "batch_size": {"low": 32, "high": 256, "step": 32},
    "model": ["mlp", "cnn"],
}


def accuracy(config: TrainConfig, epoch: int) -> float:
    """Best at a learning rate of 1e-3 and no dropout."""
    off = abs(math.log10(config.learning_rate) + 3) / 2 + config.dropout_rate / 2
    return 0.9 * (1 - off / 2) * epoch / config.epochs


class Trainers:
    """Trainers that outlive services; each finishes an epoch when it is told."""

    def __init__(self) -> None:
        self.running: dict[Path, End | None] = {}
        self.starts: list[int] = []
        self.step: Callable[[], None] = lambda: None

    def start(self, directory: Path, *_: object) -> None:
        self.step()
        if self.running.get(directory, End(0)) is not None:
            self.starts.append(int(directory.name))
            self.running[directory] = None
        self.step()

    def end(self, directory: Path) -> End | None:
        return self.running.get(directory, End(None))

    def stop(self, directory: Path) -> None:
        self.running[directory] = End(128 + signal.SIGTERM)

    def kill(self, directory: Path) -> None:
        raise AssertionError

    def train(self) -> None:
        """Finish an epoch of each, and the run after the last one."""
        for directory, end in self.running.items():
            if end is not None:
                continue
            config = load(directory / "config.json")
            epochs = len(history(directory))
            if epochs < config.epochs:
                rows = [
                    f"{epoch},0.5,{accuracy(config, epoch)}"
                    for epoch in range(1, epochs + 2)
                ]
                text = "\n".join(["epoch,val_loss,val_accuracy", *rows, ""])
                (directory / "history.csv").write_text(text)
                continue
            scores = Scores(accuracy=accuracy(config, epochs), loss=0.5)
            write_result(
                Result(
                    **{"directory": directory, "export": directory, "epochs": epochs},
                    training_seconds=1.0,
                    metrics=Metrics(train=scores, validation=scores, test=scores),
                )
            )
            self.running[directory] = End(0)


def runner_of(
    store: Store, trainers: Trainers, searches: Searches, root: Path, slots: int
) -> Runner:
    retention = Retention(
        store, root / "models", versions=None, runs=None, needed=lambda model: ()
    )
    options: dict[str, Any] = {"slots": slots, "retries": 3, "stall_timeout": 0.0}
    return Runner(store, trainers, searches, Gpus(), retention, **options)


class Service:
    """What runs jobs, without its thread: each look is a call."""

    def __init__(self, root: Path, trainers: Trainers, slots: int = 1) -> None:
        root.mkdir(exist_ok=True)
        self.root = root
        self.store = Store(root / "jobs.sqlite")
        self.searches = Searches(self.store, root / "searches.sqlite")
        self.runner = runner_of(self.store, trainers, self.searches, root, slots)
        self.trainers = trainers

    def submit(self, trials: int, **options: Any) -> int:
        roots = Roots(self.root / "runs", self.root / "models", ())
        values = {**RANGES, "trials": trials, "epochs": 2, **options}
        plan, fields, config = plan_of(values, roots)
        configs = [config] * plan.trials
        return self.store.add_sweep(fields, configs, 0, plan=plan.model_dump_json())[0]

    def look(self) -> None:
        self.runner._look()

    def run(self, until: Callable[[], bool] | None = None, looks: int = 200) -> None:
        """Look and train in turn until all jobs have ended, or until a moment."""
        for _ in range(looks):
            self.look()
            if until() if until else not self.unfinished():
                return
            self.trainers.train()
        raise AssertionError

    def unfinished(self) -> int:
        states = (State.QUEUED, State.RUNNING, State.CANCELLING)
        return sum(self.store.count(state) for state in states)

    def jobs(self) -> list[Job]:
        return sorted(self.store.page(None, 999, 0), key=lambda job: job.id)

    def trials(self, search: int = 1) -> list[optuna.trial.FrozenTrial]:
        """Return what the file says, read by Optuna alone."""
        storage = optuna.storages.RDBStorage(f"sqlite:///{self.root}/searches.sqlite")
        try:
            name = f"search-{search}"
            return optuna.load_study(study_name=name, storage=storage).trials
        finally:
            storage.remove_session()
            storage.engine.dispose()

    def close(self) -> None:
        self.searches.close()
        self.store.close()


@pytest.fixture
def trainers() -> Trainers:
    return Trainers()


@pytest.fixture
def service(tmp_path: Path, trainers: Trainers) -> Iterator[Service]:
    service = Service(tmp_path / "state", trainers)
    yield service
    service.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A search of twelve trials; Optuna draws the last two from what it learned."""
    service = Service(tmp_path_factory.mktemp("undisturbed") / "state", Trainers())
    service.submit(12)
    service.run()
    yield service
    service.close()


def drawn(job: Job) -> dict[str, Any]:
    return job.config.model_dump(include=set(RANGES))


def test_every_trial_has_values_of_its_ranges_and_is_told(undisturbed: Service) -> None:
    jobs, trials = undisturbed.jobs(), undisturbed.trials()
    assert len(jobs) == len(trials) == 12
    assert undisturbed.trainers.starts == list(range(1, 13))
    for job, trial in zip(jobs, trials, strict=True):
        config = job.config
        assert 1e-4 <= config.learning_rate <= 1e-2
        assert 0.1 <= config.dropout_rate <= 0.6
        assert config.batch_size in range(32, 257, 32)
        assert job.state is State.SUCCEEDED
        assert config.name == f"{config.model}-fashion_mnist-trial-{job.trial}"
        assert load(job.directory / "config.json") == config
        assert trial.user_attrs["job"] == job.id
        assert trial.params == {**drawn(job), "model": f'"{config.model}"'}
        assert trial.value == accuracy(config, 2)
        reached = {1: accuracy(config, 1), 2: accuracy(config, 2)}
        assert trial.intermediate_values == reached
    assert len({job.config.learning_rate for job in jobs}) == 12


def test_the_same_search_draws_the_same(undisturbed: Service, service: Service) -> None:
    """Another seed of the options draws others; the first ten follow from it alone."""
    service.submit(10, epochs=1)
    service.submit(1, seed=7)
    service.run()
    *same, other = (job.config.learning_rate for job in service.jobs())
    expected = [job.config.learning_rate for job in undisturbed.jobs()]
    assert same == expected[:10]
    assert other not in same


class Killed(BaseException):
    """What ends a life of the service; nothing catches it."""


def test_a_search_survives_a_kill_between_any_two_steps(
    undisturbed: Service,
    tmp_path: Path,
    trainers: Trainers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the draws of the search that nobody disturbed.

    A life of the service ends before its first change of a file, the next one before
    its second, and so on, until one lives to the end of the search.
    """
    left = 0

    def step() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed

    class Connection(sqlite3.Connection):
        def commit(self) -> None:
            if self.in_transaction:
                step()
            super().commit()

    transaction = Table.transaction

    @contextlib.contextmanager
    def killed_before_its_commit(table: Table) -> Iterator[sqlite3.Connection]:
        with transaction(table) as connection:
            yield connection
            step()

    def connect(path: Path) -> sqlite3.Connection:
        return sqlite3.connect(path, check_same_thread=False, factory=Connection)

    monkeypatch.setattr("service.jobs.runner._LONGEST_WAIT", 0.0)
    monkeypatch.setattr(studies, "_connect", connect)
    monkeypatch.setattr(Table, "transaction", killed_before_its_commit)
    trainers.step = step
    left = 1
    first = Service(tmp_path / "state", trainers)
    first.submit(12)
    first.close()
    lives = 0
    is_over = False
    while not is_over:
        left, lives = lives, lives + 1
        service = Service(tmp_path / "state", trainers)
        with contextlib.suppress(Killed):
            service.searches.put_right()
            service.run()
            is_over = True
        left = 999
        service.close()
    assert lives > 20
    service = Service(tmp_path / "state", trainers)
    jobs = service.jobs()
    assert trainers.starts == list(range(1, 13))
    assert [drawn(job) for job in jobs] == [drawn(job) for job in undisturbed.jobs()]
    assert {job.state for job in jobs} == {State.SUCCEEDED}
    trials = service.trials()
    complete = [t for t in trials if t.state is optuna.trial.TrialState.COMPLETE]
    assert [t.user_attrs["job"] for t in complete] == list(range(1, 13))
    assert [t.intermediate_values for t in complete] == [
        t.intermediate_values for t in undisturbed.trials()
    ]
    others = {t.state for t in trials if t not in complete}
    assert others == {optuna.trial.TrialState.FAIL}  # draws that were cut off
    service.close()


def test_a_trial_is_asked_for_when_a_slot_is_free(
    tmp_path: Path, trainers: Trainers
) -> None:
    service = Service(tmp_path / "state", trainers, slots=2)
    service.submit(5)
    service.look()
    assert [job.is_drawn for job in service.jobs()] == [True, True, False, False, False]
    assert len(service.trials()) == len(trainers.running) == 2
    service.close()


def give_history(job: Job, *accuracies: float) -> None:
    rows = [f"{epoch},0.5,{value}" for epoch, value in enumerate(accuracies, start=1)]
    text = "\n".join(["epoch,val_loss,val_accuracy", *rows, ""])
    (job.directory / "history.csv").write_text(text)


def test_a_bad_trial_is_pruned(service: Service, trainers: Trainers) -> None:
    """Also by a service that was started after its epoch, and it can be resumed."""
    service.submit(6, epochs=4)
    service.run(lambda: service.store.count(State.SUCCEEDED) == 5)
    median = sorted(accuracy(job.config, 2) for job in service.jobs()[:5])[2]
    job = service.jobs()[5]
    assert job.state is State.RUNNING
    give_history(job, 0.01)
    service.look()  # the first epoch says little
    assert service.store.running()[0].state is State.RUNNING
    service.close()
    give_history(job, 0.01, 0.02)
    again = Service(service.root, trainers)
    again.look()
    assert again.store.running()[0].state is State.CANCELLING
    for _ in range(2):  # stop its trainer; see its end
        again.look()
    pruned = again.jobs()[5]
    said = (
        "Pruned after epoch 2: its best validation accuracy, 2.00%, is below the "
        f"median of the trials before, {median:.2%}."
    )
    assert (pruned.state, pruned.message) == (State.CANCELLED, said)
    assert again.trials()[5].state is optuna.trial.TrialState.PRUNED
    assert again.trials()[5].intermediate_values == {1: 0.01, 2: 0.02}
    assert again.store.resume(6)
    again.run()
    jobs = again.jobs()
    assert {job.state for job in jobs} == {State.SUCCEEDED}
    assert trainers.starts == [*range(1, 7), 6]
    # Optuna learns its value all the same.
    value = accuracy(jobs[5].config, 4)
    assert [t.value for t in again.trials()[6:]] == [value]
    assert [t.params for t in again.trials()[6:]] == [again.trials()[5].params]
    again.close()


def test_a_trial_is_not_pruned_before_five_have_ended_or_in_its_last_epoch(
    service: Service,
) -> None:
    service.submit(6)
    for ended in range(6):
        service.look()
        job = service.jobs()[ended]
        give_history(job, 0.0 if ended % 2 else 0.5, 0.0)
        service.look()
        assert service.store.running()[0].state is State.RUNNING
        service.trainers.train()
    service.look()
    assert service.store.count(State.SUCCEEDED) == 6


def test_cancelling_a_search_stops_further_trials(
    service: Service, trainers: Trainers
) -> None:
    search = service.submit(4)
    service.look()
    assert service.store.cancel_all(search) == [1, 2, 3, 4]
    service.run()
    assert [(job.state, job.message) for job in service.jobs()] == [
        (State.CANCELLED, "")
    ] * 4
    assert trainers.starts == [1]
    (trial,) = service.trials()
    assert trial.state is optuna.trial.TrialState.FAIL
    # One that never had values gets them when it is resumed.
    assert service.store.resume(3)
    service.run()
    assert service.jobs()[2].state is State.SUCCEEDED
    assert trainers.starts == [1, 3]


def test_a_lost_file_of_studies_is_made_again(
    service: Service, trainers: Trainers
) -> None:
    """The table of jobs says what has been reached, and no draw comes twice."""
    service.submit(4)
    service.run(lambda: service.store.count(State.SUCCEEDED) == 2)
    service.close()
    for path in service.root.glob("searches.sqlite*"):
        path.unlink()
    again = Service(service.root, trainers)
    again.searches.put_right()
    again.run()
    assert trainers.starts == [1, 2, 3, 4]
    complete = [t for t in again.trials() if t.value is not None]
    assert {t.user_attrs["job"]: t.value for t in complete} == {
        job.id: accuracy(job.config, 2) for job in again.jobs()
    }
    assert len({job.config.learning_rate for job in again.jobs()}) == 4
    again.close()


def test_a_damaged_file_of_studies_keeps_only_its_trials_from_starting(
    service: Service, trainers: Trainers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.jobs.runner._SECONDS_AFTER_AN_ERROR", 0.0)
    (service.root / "searches.sqlite").write_text("no database" * 1000)
    service.submit(1)
    service.store.add(service.jobs()[0].config, priority=0)
    service.look()
    service.look()
    assert trainers.starts == [2]
    message = service.jobs()[0].message
    assert message.startswith(f"Waits, because: {service.root}/searches.sqlite cannot")
    assert message.endswith("file is not a database.")
    assert message.isprintable()


def test_a_deleted_search_leaves_nothing(
    app: FastAPI, client: TestClient, trainers: Trainers
) -> None:
    queue = app.state.queue
    runner = runner_of(queue.store, trainers, queue.searches, queue.state_dir, 1)
    body = {**RANGES, "trials": 2, "epochs": 1}
    for _ in range(3):
        assert client.post("/v1/jobs", json=body).status_code == 201
    while queue.store.count(State.SUCCEEDED) < 5:
        runner._look()
        trainers.train()
    runner._look()
    best = client.get("/v1/sweeps/1").json()["search"]["best"]
    jobs = {job.id: job for job in queue.store.of_sweep(1)}
    job = max(jobs.values(), key=lambda job: accuracy(job.config, 1))
    assert best == {
        **{"trial": job.trial, "job": job.id, "value": accuracy(job.config, 1)},
        "options": drawn(job),
    }
    answer = client.delete("/v1/sweeps/3")
    assert answer.status_code == 409
    assert answer.json()["detail"] == (
        "Job 6 of sweep 3 is running. Cancel the sweep first."
    )
    assert len(queue.store.of_sweep(3)) == 2
    run = job.directory
    assert run.is_dir()
    assert client.delete("/v1/sweeps/1").status_code == 204
    assert not run.exists()
    for call in (client.get, client.delete):
        assert call("/v1/sweeps/1").status_code == 404
        assert call(f"/v1/jobs/{job.id}").status_code == 404
    for number in (3, 4):  # one by one
        assert client.delete(f"/v1/jobs/{number}").status_code == 204
    assert client.get("/v1/sweeps/2").status_code == 404
    with queue.searches._studies() as kept:
        assert kept.searches() == [3]
    # A service that was killed before it removed a study removes it at its next start.
    client.post("/v1/sweeps/3/cancel")
    runner._look()
    runner._look()
    assert queue.store.delete_sweep(3) == []
    queue.searches.put_right()
    with queue.searches._studies() as kept:
        assert kept.searches() == []
    queue.searches.close()


def test_optuna_is_imported_for_a_search_alone_and_prints_nothing(
    tmp_path: Path,
) -> None:
    code = f"""
import sys
from pathlib import Path
from service.jobs.search import Searches
from service.jobs.store import Store
from service.jobs.plan import Plan
root = Path({str(tmp_path)!r})
searches = Searches(Store(root / "jobs.sqlite"), root / "searches.sqlite")
searches.put_right()
assert "optuna" not in sys.modules
with searches._studies() as studies:
    ranges = {{"seed": {{"low": 0, "high": 9}}}}
    plan = Plan(trials=1, seed=0, ranges=ranges, choices={{}})
    assert 0 <= studies.draw(1, plan, 1, 1)["seed"] <= 9
"""
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
