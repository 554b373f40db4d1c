"""From the body of `POST /v1/jobs` to what a search may try."""

import json
import sys

import pytest
from fastapi.testclient import TestClient

from service.app import Settings
from service.jobs.plan import MOST_TRIALS, Plan
from service.jobs.store import Store
from training.config import TrainConfig

RATE = {"low": 1e-4, "high": 1e-2, "log": True}


@pytest.mark.parametrize(
    ("body", "place", "message"),
    [
        ({"dropout_rate": {"low": 0.6, "high": 0.1}}, "dropout_rate", "low=0.6, high"),
        ({"dropout_rate": {"low": 0, "high": 0.5, "log": True}}, "dropout_rate", "abo"),
        (
            {"learning_rate": {**RATE, "step": 1e-4}},
            "learning_rate",
            "`step` and `log` exclude each other.",
        ),
        ({"learning_rate": {"low": 1e-4}}, "learning_rate.high", "Field required"),
        ({"learning_rate": {}}, "learning_rate.low", "Field required"),
        (
            {"learning_rate": {**RATE, "hgih": 1}},
            "learning_rate.hgih",
            "`hgih` is not a key of a range: it has low, high, log, step.",
        ),
        ({"learning_rate": {"low": "0", "high": 1}}, "learning_rate.low", "number"),
        ({"learning_rate": {"low": True, "high": 1}}, "learning_rate.low", "number"),
        ({"seed": {"low": 0, "high": 9, "step": 0}}, "seed.step", "greater than 0"),
        ({"seed": {"low": 0, "high": 9, "step": 2}}, "seed", "must divide the range"),
        ({"seed": {"low": 0, "high": 9, "step": 1e-9}}, "seed", "1,000,000 equal"),
        (
            {"dropout_rate": {"low": 0.1, "high": 0.6, "step": 5e-324}},
            "dropout_rate",
            "1,000,000 equal parts",
        ),
        ({"batch_size": {"low": 32.5, "high": 64}}, "batch_size", "whole.*low=32.5"),
        ({"seed": {"low": 0, "high": 1, "step": 0.5}}, "seed", "whole.*step=0.5"),
        ({"batch_size": {"low": 0, "high": 64}}, "batch_size", "or equal to 1"),
        ({"dropout_rate": {"low": 0, "high": 1}}, "dropout_rate", "less than 1"),
        (
            {"model": {"low": 1, "high": 2}},
            "model",
            "no range.* Give a value, or a list",
        ),
        ({"norm": {"low": 0, "high": 1}}, "norm", "no range, since it is not a num"),
        ({"qqq": {"low": 0, "high": 1}, "seed": RATE}, "seed", "whole"),
        (
            {"qqq": {"low": 0, "high": 1}, "learning_rate": RATE},
            "qqq",
            "`qqq` is not an option",
        ),
        ({"learning_rate": RATE, "trials": 0}, "trials", "or equal to 1"),
        ({"learning_rate": RATE, "trials": MOST_TRIALS + 1}, "trials", "equal to 500"),
        ({"learning_rate": RATE, "trials": "3"}, "trials", "integer"),
        ({"learning_rate": RATE, "trials": True}, "trials", "integer"),
        ({"learning_rate": RATE, "trials": [3]}, "trials", "integer"),
        ({"seed": [1, 2]}, "trials", "`trials` needs an option with a range."),
        ({}, "trials", "`trials` needs an option with a range."),
        ({"learning_rate": RATE, "trials": None}, "trials", "integer"),
        ({"learning_rate": RATE, "seed": []}, "seed", "must not be empty"),
        ({"learning_rate": RATE, "name": ["a", "b"]}, "name", "has one name"),
        ({"learning_rate": RATE, "dataset": "folder:/etc"}, "dataset", "must lie in"),
        ({"learning_rate": RATE, "seed": list(range(501))}, "", "at most 1000 comb"),
        (
            {
                "learning_rate": RATE,
                "model": ["mlp", "cnn"],
                "preset": "srivastava2014",
            },
            "",
            "`preset` chooses",
        ),
        (
            {"dropout_rate": {"low": 0, "high": 0.5}, "monte_carlo": [2, 3]},
            "",
            "`monte_carlo` needs dropout.",
        ),
    ],
)
def test_a_search_that_is_not_allowed_is_refused_in_one_line(
    client: TestClient, body: dict[str, object], place: str, message: str
) -> None:
    answer = client.post("/v1/jobs", json={"trials": 5, **body})
    assert answer.status_code == 422
    (complaint,) = answer.json()["detail"][:1]
    assert complaint["loc"] == ["body", *filter(None, place.split("."))]
    for part in message.split(".*"):
        assert part in complaint["msg"]
    assert complaint["msg"].isprintable()
    assert client.get("/v1/jobs").json()["total"] == 0


def test_a_range_needs_trials(client: TestClient) -> None:
    answer = client.post("/v1/jobs", json={"learning_rate": RATE})
    assert answer.status_code == 422
    (complaint,) = answer.json()["detail"]
    assert complaint["loc"] == ["body", "trials"]
    assert complaint["msg"].startswith("A range needs `trials`")


def test_an_option_that_is_an_object_has_no_range(client: TestClient) -> None:
    """Its value is that of a model's argument."""
    body = {"model_option": {"low": 1, "high": 2}}
    answer = client.post("/v1/jobs", json=body)
    assert answer.status_code == 201
    assert answer.json()["config"]["model_option"] == body["model_option"]


def test_a_search_queues_all_its_trials(client: TestClient, store: Store) -> None:
    """They have no values yet, and are counted and listed as other jobs are."""
    body = {
        **{"learning_rate": RATE, "model": ["mlp", "cnn"], "epochs": 7},
        **{"batch_size": {"low": 32, "high": 256.0, "step": 32}, "trials": 3},
    }
    answer = client.post("/v1/jobs?priority=4", json=body)
    assert answer.status_code == 201
    search = answer.json()
    assert client.get(f"/v1/sweeps/{search['id']}").json() == search
    assert search["fields"] == ["learning_rate", "model", "batch_size"]
    assert search["search"] == {
        "trials": 3,
        "ranges": {
            "learning_rate": {**RATE, "step": None},
            "batch_size": {"low": 32, "high": 256, "log": False, "step": 32},
        },
        "choices": {"model": ["mlp", "cnn"]},
        "pruned": 0,
        "best": None,
    }
    assert [(row["trial"], row["values"]) for row in search["rows"]] == [
        (1, {}),
        (2, {}),
        (3, {}),
    ]
    jobs = store.next(9)
    assert [job.id for job in jobs] == [1, 2, 3]
    assert {(j.priority, j.config.epochs, j.is_drawn) for j in jobs} == {(4, 7, False)}
    assert {job.message for job in jobs} == {"Its values are drawn when it starts."}
    assert 'kerasnorm_jobs{state="queued"} 3.0' in (
        client.get("/monitoring/prometheus/metrics").text
    )


def test_choices_are_kept_as_they_were_when_they_were_checked(
    client: TestClient, store: Store, settings: Settings
) -> None:
    """A relative path would mean another place to a service started elsewhere."""
    (root,) = settings.jobs.data_roots
    folders = [f"folder:{root}/pictures/../{name}" for name in ("pictures", "b")]
    (root / "b").mkdir()
    options = [{"a": 1}, {"a": True}, {"a": 1}]
    body = {"dataset": folders, "model_option": options, "learning_rate": RATE}
    answer = client.post("/v1/jobs", json={**body, "trials": 1})
    assert answer.status_code == 201
    plan = Plan.model_validate_json(store.plan(1) or "")
    config = store.next(1)[0].config
    drawn = {"dataset": plan.choices["dataset"][1], "learning_rate": 1e-3}
    trial = plan.config_with(
        {**drawn, "model_option": plan.choices["model_option"][1]}, config, 12
    )
    expected = {"dataset": folders[1], "model_option": {"a": True}, "name": trial.name}
    assert trial == TrainConfig(**config.model_dump() | drawn | expected)
    assert (trial.name, trial.model_option["a"]) == ("cnn-b-trial-12", True)
    assert len(plan.choices["model_option"]) == 2
    assert plan.drawn_of(trial)["model_option"] == json.dumps({"a": True})


def test_without_optuna_a_search_is_refused_and_all_else_works(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    answer = client.post("/v1/jobs", json={"learning_rate": RATE, "trials": 2})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["msg"] == (
        "A search needs Optuna: pip install --group serve brings it."
    )
    assert client.post("/v1/jobs", json={"seed": [1, 2]}).status_code == 201
    client.post("/v1/sweeps/1/cancel")
    assert client.delete("/v1/sweeps/1").status_code == 204
