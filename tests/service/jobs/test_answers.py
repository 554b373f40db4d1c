"""What is answered about the files of a run."""

import json
import math

import pytest
from fastapi.testclient import TestClient

from service.app import Settings
from service.jobs.store import State, Store

DAMAGED = [
    *("", "{}", "[]", "a,b\n1", "{", "\x00", "[" * 100_000, "epoch,loss\n1,0.5\n"),
    '{"export": "/"}',
    '{"epoch": 1, "epochs": 1, "step": 0, "steps": 0}',
]


@pytest.mark.parametrize("name", ["history.csv", "progress.json", "result.json"])
@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_file_of_a_run_counts_as_not_there(
    client: TestClient, settings: Settings, name: str, text: str
) -> None:
    client.post("/v1/jobs", json={"seed": [1]})
    run = settings.jobs.state_dir / "runs" / "1"
    run.mkdir(parents=True)
    (run / name).write_text(text)
    job = client.get("/v1/jobs/1").json()
    assert job["result"] is job["progress"] is None
    (row,) = client.get("/v1/sweeps/1").json()["rows"]
    assert row["validation"] is None


def test_figures_that_are_not_finite_are_null(
    client: TestClient, settings: Settings
) -> None:
    """As train.py writes them where a learning rate was too high."""
    client.post("/v1/jobs", json={"seed": [1]})
    run = settings.jobs.state_dir / "runs" / "1"
    run.mkdir(parents=True)
    history = "epoch,loss,val_loss,val_accuracy\n1,inf,nan,0.125\n"
    (run / "history.csv").write_text(history)
    row = {"epoch": 1, "loss": None, "val_loss": None, "val_accuracy": 0.125}
    assert client.get("/v1/jobs/1/metrics").json() == [row]
    assert client.get("/v1/jobs/1").json()["metrics"] == row
    scores = {"loss": math.nan, "accuracy": 0.125}
    result = {"directory": str(run), "export": str(run), "epochs": 1}
    result |= {"training_seconds": 2.5}
    result |= {"metrics": dict.fromkeys(("train", "validation", "test"), scores)}
    for text in ("", json.dumps(result)):
        (run / "result.json").write_text(text)
        (row,) = client.get("/v1/sweeps/1").json()["rows"]
        assert row["validation"] == {"loss": None, "accuracy": 0.125}
    scores["loss"] = None
    result["test"] = None  # of an earlier release
    assert client.get("/v1/jobs/1").json()["result"] == result


def test_the_best_of_a_sweep_is_the_most_accurate_that_succeeded(
    client: TestClient, store: Store
) -> None:
    client.post("/v1/jobs", json={"seed": [1, 2, 3, 4]})
    for number, accuracy in enumerate((0.5, 0.75, 0.25, 1.0), start=1):
        job = store.get(number)
        assert job
        job.directory.mkdir(parents=True)
        history = f"epoch,val_loss,val_accuracy\n1,0.5,{accuracy}\n"
        (job.directory / "history.csv").write_text(history)
        store.start(job, attempts=1, epochs=0)
    assert client.get("/v1/sweeps/1").json()["best"] is None
    for number in (1, 2, 3):
        store.end(number, State.SUCCEEDED)
    store.end(4, State.FAILED)
    sweep = client.get("/v1/sweeps/1").json()
    assert sweep["best"] == 2
    assert [row["epochs"] for row in sweep["rows"]] == [1, 1, 1, 1]
