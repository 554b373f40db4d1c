"""The body of `POST /v1/jobs`."""

import pytest
from fastapi.testclient import TestClient


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 422), (b"[]", 422), (b"", 422), (b'"x"', 422), (b"[" * 50_000, 422)],
)
def test_a_body_that_is_no_json_object(
    client: TestClient, body: bytes, status: int
) -> None:
    answer = client.post(
        "/v1/jobs", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == status
    assert answer.json()["detail"][0]["msg"].startswith("The body must be")


@pytest.mark.parametrize(
    "media_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"],
)
def test_forms_of_other_pages_submit_nothing(
    client: TestClient, media_type: str
) -> None:
    answer = client.post(
        "/v1/jobs", content=b"{}", headers={"Content-Type": media_type}
    )
    assert answer.status_code == 415
    assert media_type in answer.json()["detail"]
