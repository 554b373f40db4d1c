"""The directories that jobs are confined to."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.app import Settings
from service.jobs.paths import OutsideError, Roots
from training.config import TrainConfig


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
    assert config.model_dump(exclude={"run_dir", "export_dir"}) == given.model_dump(
        exclude={"run_dir", "export_dir"}
    )
    own = TrainConfig(run_dir=roots.runs, export_dir=roots.exports)
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


def test_without_roots_data_may_lie_nowhere(tmp_path: Path) -> None:
    roots = Roots(tmp_path, tmp_path, ())
    with pytest.raises(OutsideError, match=r"`archives` must lie in nowhere\."):
        roots.confine(TrainConfig(archives=tmp_path))
    assert roots.confine(TrainConfig()).archives is None
