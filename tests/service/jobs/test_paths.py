"""The directories that jobs are confined to."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from fastapi.testclient import TestClient

from service.app import Settings
from service.jobs.paths import OutsideError, Roots
from training.config import TrainConfig

OWN = {"run_dir", "export_dir"}  # the service's own directories, or left out


def types_in(annotation: Any) -> Iterator[Any]:
    """The types that a field's values may have, but for those of a fixed choice."""
    if get_origin(annotation) is Literal:
        return
    parts = get_args(annotation)
    yield from [annotation] if not parts else (t for p in parts for t in types_in(p))


def options_of(kind: type) -> list[str]:
    fields = TrainConfig.model_fields.items()
    return [name for name, field in fields if kind in types_in(field.annotation)]


def test_a_link_does_not_lead_out_of_the_roots(
    client: TestClient, settings: Settings, tmp_path: Path
) -> None:
    (root,) = settings.jobs.data_roots
    (root / "link").symlink_to("/etc")
    (root / "loop").symlink_to(root / "loop")
    for path in (root / "link", root / "loop" / "x", root / ".." / "elsewhere"):
        answer = client.post("/v1/jobs", json={"archives": str(path)})
        assert answer.status_code == 422
    inside = client.post("/v1/jobs", json={"dataset": f"folder:{root / 'pictures'}"})
    assert inside.status_code == 201


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    data = tmp_path / "data", tmp_path / "more"
    return Roots(tmp_path / "runs", tmp_path / "models", data)


def test_a_config_gets_the_services_directories(roots: Roots, tmp_path: Path) -> None:
    given = TrainConfig(model="mlp", archives=tmp_path / "more" / "a", epochs=3)
    config = roots.confine(given)
    assert (config.run_dir, config.export_dir) == (roots.runs, roots.exports)
    others = set(TrainConfig.model_fields) - {"run_dir", "export_dir", "download"}
    assert config.model_dump(include=others) == given.model_dump(include=others)
    own = TrainConfig(run_dir=roots.runs, export_dir=roots.exports, download=False)
    assert roots.confine(own) == own


@pytest.mark.parametrize(
    ("field", "path"),
    [
        ("run_dir", "runs/below"),
        ("export_dir", "models/below"),
        ("data_dir", "date"),
        ("archives", "data2"),
        ("dataset", "folder:{}/runs"),
    ],
)
def test_a_path_elsewhere_is_refused_by_its_field(
    roots: Roots, tmp_path: Path, field: str, path: str
) -> None:
    value = path.format(tmp_path) if "{}" in path else tmp_path / path
    with pytest.raises(OutsideError, match=f"`{field}` must ") as caught:
        roots.confine(TrainConfig(**{field: value}))
    assert caught.value.field == field


@pytest.mark.parametrize(
    "dataset", ["huggingface:ylecun/mnist", "kaggle:x", "huggingface:1", "a:b:c", "x:"]
)
def test_a_dataset_of_another_host_needs_the_operators_leave(
    roots: Roots, dataset: str
) -> None:
    config = TrainConfig(dataset=dataset)
    with pytest.raises(OutsideError, match="--allow-downloads") as caught:
        roots.confine(config)
    assert caught.value.field == "dataset"
    allowed = replace(roots, downloads=True).confine(config)
    assert (allowed.dataset, allowed.download) == (dataset, True)


def test_a_job_may_not_take_leave_to_download(roots: Roots) -> None:
    for dataset in ("mnist", "mnist:3.0.1", "emnist/letters:*.*.*", "folder:x:y"):
        config = TrainConfig(dataset=dataset)
        if dataset.startswith("folder:"):
            config = TrainConfig(dataset=f"folder:{roots.data[0]}/x:y")
        assert roots.confine(config).download is False
        assert replace(roots, downloads=True).confine(config).download is True
    with pytest.raises(OutsideError, match="--allow-downloads") as caught:
        roots.confine(TrainConfig(download=True))
    assert caught.value.field == "download"


def test_jobs_of_every_way_in_have_no_leave_to_download(
    client: TestClient, settings: Settings
) -> None:
    """A sweep as well as a job; both as they are kept and given to trainers."""
    for body in ({"dataset": "mnist"}, {"dataset": ["mnist", "cifar10"]}):
        assert client.post("/v1/jobs", json=body).status_code == 201
    jobs = client.get("/v1/jobs").json()["jobs"]
    configs = [client.get(f"/v1/jobs/{job['id']}").json()["config"] for job in jobs]
    assert [config["download"] for config in configs] == [False] * 3
    for body in ({"download": True}, {"download": [False, True]}):
        assert client.post("/v1/jobs", json=body).status_code == 422


def test_without_roots_data_may_lie_nowhere(tmp_path: Path) -> None:
    roots = Roots(tmp_path, tmp_path, ())
    with pytest.raises(OutsideError, match=r"`archives` must lie in nowhere\."):
        roots.confine(TrainConfig(archives=tmp_path))
    assert roots.confine(TrainConfig()).archives is None


@pytest.mark.parametrize("field", options_of(Path))
def test_every_option_that_is_a_path_is_confined(
    client: TestClient, field: str, tmp_path: Path
) -> None:
    """By its type, so that a new one is tried without anyone thinking of it."""
    (tmp_path / "secret").mkdir()
    for path in ("/etc", "/etc/passwd", str(tmp_path / "secret"), "~/.ssh", ".."):
        answer = client.post("/v1/jobs", json={field: path})
        assert answer.status_code == 422
        (complaint,) = answer.json()["detail"]
        assert complaint["loc"] == ["body", field]
    assert client.get("/v1/jobs").json()["total"] == 0


def test_every_other_text_option_can_name_no_file() -> None:
    texts = set(options_of(str)) - {"dataset", "model", "model_option", "freeze"}
    for field in texts:
        for text in ("/etc", "a/b", "..", "~root", "http://evil.example", "C:\\x"):
            with pytest.raises(ValueError, match="pattern"):
                TrainConfig(**{field: text})
    assert set(options_of(Path)) >= OWN
    assert "dataset" in options_of(str)


def test_a_regular_expression_is_no_path(roots: Roots) -> None:
    for pattern in (".*_bn", r"block\d", "a/b", "^/etc", "~x"):
        assert roots.confine(TrainConfig(freeze=pattern)).freeze == pattern


@pytest.mark.parametrize("options", [{"file": "/etc/passwd"}, {"a": ["x", "../x"]}])
def test_an_argument_of_a_model_is_confined(roots: Roots, options: Any) -> None:
    with pytest.raises(OutsideError, match="`model_option` must lie in"):
        roots.confine(TrainConfig(model_option=options))
    inside = {"file": str(roots.data[0] / "x"), "width": 3, "name": "plain"}
    assert roots.confine(TrainConfig(model_option=inside)).model_option == inside


CODE = (
    *("{}/../nets.py:f", "/etc/nets.py:f", "nets.py:f", "~/nets.py:f", "{}2/nets.py:f"),
    *("os:system", "os.path:join", "service.app:make", "{}/link/nets.py:f"),
)


@pytest.mark.parametrize("model", CODE)
def test_a_job_runs_no_code_but_that_of_the_operator(
    roots: Roots, tmp_path: Path, model: str
) -> None:
    root = tmp_path / "nets"
    root.mkdir()
    (root / "link").symlink_to("/etc")
    config = TrainConfig(model=model.format(root))
    for given in (roots, replace(roots, models=(root,))):
        with pytest.raises(OutsideError, match="`model` must ") as caught:
            given.confine(config)
        assert caught.value.field == "model"


def test_a_job_names_models_of_keras_and_of_the_operator(
    roots: Roots, tmp_path: Path
) -> None:
    own = f"{tmp_path}/nets/a.py:wide"
    for model in ("cnn", "mlp", "applications:ResNet50", own):
        config = replace(roots, models=(tmp_path / "nets",)).confine(
            TrainConfig(model=model)
        )
        assert config.model == model
    with pytest.raises(OutsideError, match="--model-root"):
        roots.confine(TrainConfig(model=own))


class Later(TrainConfig):
    """A config with options that nobody has thought of here."""

    teacher: Path | None = None
    more: tuple[Path, ...] = ()
    by_name: dict[str, Path] | None = None
    weights: str | None = None
    kind: str = "plain"


@pytest.mark.parametrize(
    "values",
    [
        {"teacher": "/etc/passwd"},
        {"more": ["data/x", "/etc/passwd"]},
        {"by_name": {"x": "/etc/passwd"}},
        {"by_name": {"/etc/passwd": "data/x"}},
        *({"weights": w} for w in ("/etc/passwd", "../x", "~/x", "http://e.x", "gs:x")),
    ],
    ids=str,
)
def test_an_option_of_a_later_release_is_confined(
    roots: Roots, values: dict[str, Any]
) -> None:
    with pytest.raises(OutsideError, match="must lie in") as caught:
        roots.confine(Later(**values))
    assert caught.value.field in values


def test_an_option_of_a_later_release_may_name_data(roots: Roots) -> None:
    inside = roots.data[0] / "x"
    given = Later(teacher=inside, more=(inside, inside), weights=f"{inside}.h5")
    config = roots.confine(given)
    assert config.teacher == inside
    assert roots.confine(Later(weights="imagenet")).weights == "imagenet"


def test_a_path_that_no_system_takes_is_refused(client: TestClient) -> None:
    """It would be kept in each job of a sweep."""
    long = "/".join(["x" * 200] * 30)
    answer = client.post("/v1/jobs", json={"archives": f"/{long}", "seed": [1, 2]})
    assert answer.status_code == 422
    assert "at most 4095 bytes" in answer.text
