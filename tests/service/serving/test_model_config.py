"""Policies, labels, and TensorFlow Serving's file of models."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("simdjson", reason="pip install --group serve")

from service.serving.model_config import every, latest, read_config_file, specific
from service.serving.servables import Servables
from tests.service.serving.served import factor, publish, refused, serve, until
from training.errors import UserError


@pytest.mark.parametrize(
    ("policy", "chosen"),
    [
        (latest(), {9}),
        (latest(2), {9, 4}),
        (latest(9), {1, 4, 9}),
        (every, {1, 4, 9}),
        (specific(1, 4, 7), {1, 4}),
        (specific(), set()),
    ],
)
def test_policies(policy: Any, chosen: set[int]) -> None:
    assert policy({1, 4, 9}) == chosen
    assert policy(set()) == set()


def config(policy: str = "", labels: str = "", base_path: str = "m") -> str:
    return (
        f'model_config_list {{ config {{ name: "m" base_path: "{base_path}" '
        f'model_platform: "tensorflow" {policy} {labels} }} }}'
    )


ENTRY = 'config { name: "m" base_path: "m" }'
TWICE = f"model_config_list {{ {ENTRY} {ENTRY} }}"


@pytest.fixture
def configured(tmp_path: Path, scales: Path) -> Path:
    pytest.importorskip("tensorflow_serving", reason="no extra `grpc`")
    for number in (1, 2, 3):
        publish(scales / str(number), tmp_path / "m" / str(number))
    publish(scales / "4", tmp_path / "other" / "1")
    return tmp_path / "models.config"


def test_a_config_file_names_models_versions_and_labels(configured: Path) -> None:
    base = configured.parent
    labels = (
        'version_labels { key: "stable" value: 1 } '
        'version_labels { key: "gone" value: 7 }'
    )
    configured.write_text(
        config("model_version_policy { specific { versions: 1 versions: 2 } }", labels)
    )
    with serve(base, model_config_file=configured) as (client, serving):
        until(lambda: client.status("m") == {2: "AVAILABLE", 1: "AVAILABLE"})
        assert client.status("other") == {}
        assert serving.servables.needed(base / "m") == {1, 2, 7}
        assert serving.servables.needed(base / "other") == set()
        assert factor(client) == 2
        assert factor(client, version="/versions/1") == 1
        assert factor(client, version="/labels/stable") == 1
        assert "Unrecognized servable version label: canary" in refused(
            client, "/labels/canary"
        )
        assert "Specific(m, 7)" in refused(client, "/labels/gone")
        _, answer = client.send("GET", "/v1/models/m/labels/stable/metadata")
        assert json.loads(answer)["model_spec"]["version"] == "1"
        # The file is read again, and one that is wrong changes nothing.
        configured.write_text("nonsense {")
        time.sleep(0.5)
        assert factor(client, version="/labels/stable") == 1
        configured.write_text(
            config(
                "model_version_policy { all {} }",
                'version_labels { key: "stable" value: 3 }',
            )
        )
        until(lambda: client.status("m") == dict.fromkeys((3, 2, 1), "AVAILABLE"))
        assert factor(client, version="/labels/stable") == 3
        configured.write_text(
            config("model_version_policy { latest { num_versions: 2 } }")
        )
        until(lambda: client.status("m") == {3: "AVAILABLE", 2: "AVAILABLE", 1: "END"})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("nonsense {", "must name a readable ModelServerConfig"),
        (config(base_path="../elsewhere"), "must lie under .*Received: '../elsewhere'"),
        (config(base_path="/etc"), "must lie under .*Received: '/etc'"),
        (config().replace('"tensorflow"', '"caffe"'), "Received: 'caffe' for m"),
        (TWICE, "Received: 'm' twice"),
        (config().replace('name: "m"', ""), "needs a `name`"),
        ("custom_model_config {}", "`custom_model_config` is not supported"),
    ],
)
def test_a_wrong_config_file_is_one_line(
    tmp_path: Path, text: str, complaint: str
) -> None:
    pytest.importorskip("tensorflow_serving", reason="no extra `grpc`")
    path = tmp_path / "models.config"
    path.write_text(text)
    with pytest.raises(UserError, match=complaint) as caught:
        Servables(tmp_path, path)
    assert "\n" not in str(caught.value).strip()
    with pytest.raises(UserError, match=r"missing\.config"):
        read_config_file(tmp_path / "missing.config", tmp_path)
