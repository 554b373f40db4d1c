"""The directories that jobs are confined to."""

from pathlib import Path

from fastapi.testclient import TestClient

from service.app import Settings


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
