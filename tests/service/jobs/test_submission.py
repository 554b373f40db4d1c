"""From the body of `POST /v1/jobs` to configs."""

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from fastapi.testclient import TestClient

from service.app import Settings
from service.jobs.paths import Roots
from service.jobs.submission import SubmissionError, configs_of
from tests.conftest import REPOSITORY
from training.config import TrainConfig


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({"epochs": 0}, "epochs", "greater than or equal to 1"),
        ({"epoch": 3}, "epoch", "`epoch` is not an option.* Did you mean `epochs`?"),
        ({"batchsize": [3]}, "batchsize", "Did you mean `batch_size`?"),
        ({"qqq": 3}, "qqq", "`qqq` is not an option of train.py."),
        ({"gpus": 2}, "gpus", "Give it in the query: POST /v1/jobs?gpus=N."),
        ({"epochs": [3, True]}, "epochs", "should be a number"),
        ({"norm": 1}, "norm", "should be true or false"),
        ({"dataset": "mnist\u2028error: x"}, "dataset", "pattern"),
        ({"dataset": "mnist\x85error: x"}, "dataset", "pattern"),
        ({"dataset": "mnist\u202ex"}, "dataset", "pattern"),
        ({"a\u2028b": 1}, "a\u2028b", r"`a\u2028b` is not"),
        ({"dataset": "fashion_mnits"}, "dataset", "Did you mean fashion_mnist"),
        ({"dataset": "kubric:kubric_frame"}, "dataset", "no datasets from other hosts"),
        ({"dataset": "mnist/x=/etc"}, "dataset", "must be the name of a TFDS dataset"),
        ({"dataset": "/etc/passwd"}, "dataset", "must be the name of a TFDS dataset"),
        ({"dataset": "../mnist"}, "dataset", "must be the name of a TFDS dataset"),
        (
            {"dataset": "gs://tfds-data/mnist"},
            "dataset",
            "no datasets from other hosts",
        ),
        ({"model": "rnn"}, "model", "must be cnn, mlp, applications:NAME"),
        ({"model": "os.path:join"}, "model", "--model-root"),
        ({"dropout_rate": 1.5}, "dropout_rate", "less than 1"),
        ({"learning_rate": "fast"}, "learning_rate", "valid number"),
        ({"name": "../evil"}, "name", "pattern"),
        ({"dataset": "a\nb"}, "dataset", "pattern"),
        ({"batch_size": 2**62}, "batch_size", "less than 2147483648"),
        ({"learning_rate": 1e300}, "learning_rate", "less than or equal to 1000000"),
        ({"replicas": 10**9}, "replicas", "less than or equal to 256"),
        ({"name": ".hidden"}, "name", "pattern"),
        ({"epochs": []}, "epochs", "must not be empty"),
        ({"epochs": [1, 0]}, "epochs", "greater than or equal to 1"),
        ({"export_dir": "/etc"}, "export_dir", "must be /"),
        ({"run_dir": "/etc"}, "run_dir", "must be /"),
        ({"name": "x" * 101}, "name", "at most 100 characters"),
        ({"dataset": "x" * 1001}, "dataset", "at most 1000 characters"),
        ({"archives": "~nosuchuser/x"}, "archives", "there is no such user"),
        ({"dataset": "folder:~nosuchuser"}, "dataset", "there is no such user"),
        ({"data_dir": "/etc"}, "data_dir", "must lie in"),
        ({"archives": "/etc"}, "archives", "must lie in"),
        ({"dataset": "folder:/etc"}, "dataset", "must lie in"),
    ],
)
def test_a_config_that_is_not_allowed_is_refused_with_its_field(
    client: TestClient, body: dict[str, object], field: str, message: str
) -> None:
    answer = client.post("/v1/jobs", json=body)
    assert answer.status_code == 422
    (complaint,) = answer.json()["detail"]
    assert complaint["loc"] == ["body", field]
    assert complaint.keys() <= {"type", "loc", "msg", "input"}
    for part in message.split(".*"):
        assert part in complaint["msg"]
    assert complaint["msg"].isprintable()
    assert client.get("/v1/jobs").json()["total"] == 0


@pytest.mark.parametrize(
    "field",
    [
        name
        for name, field in TrainConfig.model_fields.items()
        if {int, float} & {field.annotation, *get_args(field.annotation)}
    ],
)
def test_a_number_is_not_true(client: TestClient, field: str) -> None:
    for value in (True, False):
        answer = client.post("/v1/jobs", json={field: value})
        assert answer.status_code == 422
        (complaint,) = answer.json()["detail"]
        assert complaint["loc"] == ["body", field]
        assert complaint["msg"] == "Input should be a number"


def test_datasets_that_are_known_are_taken(
    client: TestClient, settings: Settings
) -> None:
    """Without a network: TFDS's, prepared ones and those of Hugging Face."""
    (root,) = settings.jobs.data_roots
    (root / "prepared").mkdir()
    body = {"dataset": ["emnist/letters", "prepared:1.0.0"], "data_dir": str(root)}
    assert client.post("/v1/jobs", json=body).status_code == 201
    roots = Roots(root, root, (root,), downloads=True)
    for name, is_known in {"huggingface:mnist": True, "kubric:x": False}.items():
        with contextlib.nullcontext() if is_known else pytest.raises(SubmissionError):
            configs_of({"dataset": name}, roots)


def test_a_config_whose_fields_contradict_each_other_is_refused(
    client: TestClient,
) -> None:
    answer = client.post("/v1/jobs", json={"norm": False, "recalibrate": 100})
    assert answer.status_code == 422
    (complaint,) = answer.json()["detail"]
    assert complaint["loc"] == ["body"]
    assert "`recalibrate` needs batch normalization" in complaint["msg"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"name": "\\ud800"}',
        b'{"seed": 1e400}',
        b'{"learning_rate": NaN}',
        b'{"learning_rate": [NaN]}',
        b'{"seed": 99999999999999999999999999}',
        b'{"epochs": [[1]]}',
        b'{"\\ud800": 1}',
        b'{"dataset": "folder:\\u0000"}',
        b'{"data_dir": "\\u0000"}',
        b'{"model": {"a": 1}}',
    ],
)
def test_odd_values_are_refused(client: TestClient, body: bytes) -> None:
    answer = client.post(
        "/v1/jobs", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422
    assert answer.json()["detail"]


def test_a_sweep_makes_a_job_of_each_combination(client: TestClient) -> None:
    body = {"learning_rate": [1e-3, 2e-3], "model": ["mlp", "cnn"], "seed": 5}
    answer = client.post("/v1/jobs", json=body)
    assert answer.status_code == 201
    sweep = answer.json()
    assert client.get(f"/v1/sweeps/{sweep['id']}").json() == sweep
    assert sweep["fields"] == ["learning_rate", "model"]
    assert sweep["best"] is None
    assert [row["values"] for row in sweep["rows"]] == [
        {"learning_rate": 1e-3, "model": "mlp"},
        {"learning_rate": 1e-3, "model": "cnn"},
        {"learning_rate": 2e-3, "model": "mlp"},
        {"learning_rate": 2e-3, "model": "cnn"},
    ]
    names = [
        client.get(f"/v1/jobs/{row['job']}").json()["name"] for row in sweep["rows"]
    ]
    assert names[0] == "mlp-fashion_mnist-learning_rate-0.001-model-mlp"
    assert len(set(names)) == 4
    jobs = client.get("/v1/jobs").json()["jobs"]
    assert {job["sweep"] for job in jobs} == {sweep["id"]}
    assert client.get("/v1/sweeps/2").status_code == 404


@pytest.mark.parametrize(
    "values", [{"seed": [1, 1]}, {"name": ["a", "a"]}, {"name": ["x" * 99, "y"]}]
)
def test_no_two_jobs_of_a_sweep_have_one_name(
    client: TestClient, values: dict[str, list[object]]
) -> None:
    body = {**values, "seed": values.get("seed", 0), "epochs": [1, 2]}
    assert client.post("/v1/jobs", json=body).status_code == 201
    names = [job["name"] for job in client.get("/v1/jobs").json()["jobs"]]
    assert len(set(names)) == 4
    assert max(map(len, names)) <= 100


def test_a_sweep_is_queued_whole_or_not_at_all(client: TestClient) -> None:
    too_many = {"seed": list(range(1001))}
    # Their combinations would fit in no memory.
    far_too_many = {f: list(range(500)) for f in sorted(TrainConfig.model_fields)[:9]}
    for body in ({"epochs": [1, 2, 0]}, too_many, far_too_many):
        assert client.post("/v1/jobs", json=body).status_code == 422
    assert client.get("/v1/jobs").json() == {"total": 0, "jobs": []}


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    return Roots(tmp_path / "runs", tmp_path / "models", (tmp_path,))


def test_all_that_is_wrong_is_told_without_a_web_framework(roots: Roots) -> None:
    with pytest.raises(SubmissionError) as error:
        configs_of({"epochs": 0, "colour": "red", "seed": "x"}, roots)
    fields = [complaint["loc"] for complaint in error.value.complaints]
    assert sorted(fields) == [("colour",), ("epochs",), ("seed",)]
    assert "; " in str(error.value)
    with pytest.raises(SubmissionError, match=r"1000 jobs\. Received: 1001"):
        configs_of({"seed": list(range(1001))}, roots)
    with pytest.raises(SubmissionError, match="`archives` must lie in") as error:
        configs_of({"archives": "/etc"}, roots)
    assert [each["loc"] for each in error.value.complaints] == [("archives",)]
    code = (
        "import sys, service.jobs.submission; "
        "sys.exit(bool({'fastapi', 'starlette'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


def test_the_largest_sweep_has_a_thousand_jobs(roots: Roots) -> None:
    swept, configs = configs_of({"seed": list(range(1000)), "model": "mlp"}, roots)
    assert swept == ["seed"]
    assert [config.seed for config in configs] == list(range(1000))
    assert configs[7].name == "mlp-fashion_mnist-seed-7"


def test_one_job_keeps_its_name(roots: Roots) -> None:
    assert configs_of({"epochs": 2}, roots) == (
        [],
        [roots.confine(TrainConfig(epochs=2))],
    )


def test_names_that_would_be_too_long_are_numbered(roots: Roots) -> None:
    """Those of 100 characters are not."""
    for length, ends in ((90, "-seed-1"), (95, "-1")):
        name = "x" * length
        _, configs = configs_of({"name": name, "seed": [1, 2]}, roots)
        assert configs[0].name == name[: 100 - 5] + ends
        assert len({config.name for config in configs}) == 2
