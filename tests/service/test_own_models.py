"""Models and pictures of one's own at the service, from a folder to an answer."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from tests.conftest import REPOSITORY
from tests.service.services import Service, wait_until

NETS = """\
import keras

def small(input_shape, num_classes, width=8, dropout_rate=0.5, scale=1 / 255):
    return keras.Sequential([
        keras.Input(input_shape),
        keras.layers.Rescaling(scale),
        keras.layers.Conv2D(width, 3, strides=2),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.GlobalMaxPooling2D(),
        keras.layers.Dropout(dropout_rate),
        keras.layers.Dense(num_classes),
    ])
"""


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Colour pictures of four classes, of different sizes."""
    root = tmp_path_factory.mktemp("pictures") / "shapes"
    script = REPOSITORY / "examples" / "pictures.py"
    subprocess.run([sys.executable, str(script), str(root), "40"], check=True)
    return root


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, shapes: Path
) -> Iterator[Service]:
    root = tmp_path_factory.mktemp("service")
    nets = root / "nets"
    nets.mkdir()
    (nets / "nets.py").write_text(NETS)
    options = ("--data-root", shapes.parent, "--model-root", nets)
    service = Service(root, *options).start()
    yield service
    service.end()


def answers(service: Service, name: str, shapes: Path) -> dict[str, Any]:
    """Ask the served model for two pictures of different sizes, one after the other."""
    url = f"{service.url}/v1/models/{name}"
    wait_until(lambda: requests.get(url, timeout=60).ok)
    found = []
    for path in (shapes / "disc" / "000.png", shapes / "cross" / "001.png"):
        pixels = np.asarray(Image.open(path)).tolist()
        answer = requests.post(
            f"{url}:predict", json={"instances": [pixels]}, timeout=60
        )
        assert answer.ok, answer.text
        found += answer.json()["predictions"]
    return {key: np.array([each[key] for each in found]) for key in found[0]}


def check_answers(found: dict[str, Any]) -> None:
    assert found["probabilities"].shape == (2, 4)
    np.testing.assert_allclose(found["probabilities"].sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(found["classes"], found["logits"].argmax(1))


@pytest.mark.slow
def test_a_model_in_a_file_is_killed_goes_on_and_is_served(
    service: Service, shapes: Path
) -> None:
    config = {
        "dataset": f"folder:{shapes}",
        "image_size": 32,
        "model": f"{service.root}/nets/nets.py:small",
        "model_option": {"width": 16},
        "epochs": 4,
        "batch_size": 8,
        "augment": "flip",
        "name": "own",
    }
    job = service.submit(config)
    wait_until(lambda: service.epochs(job) or service.get(str(job))["message"])
    assert service.epochs(job), service.get(str(job))["message"]
    service.kill_trainer(job)
    detail = service.wait_for(job, "succeeded", "failed")
    assert detail["state"] == "succeeded", detail["message"]
    assert "started again" in (service.run(job) / "log.txt").read_text()
    assert (service.run(job) / "model.py").read_text() == NETS
    check_answers(answers(service, "own", shapes))


@pytest.mark.slow
def test_colour_pictures_of_any_size_to_a_network_of_keras_applications(
    service: Service, shapes: Path
) -> None:
    config = {
        "dataset": f"folder:{shapes}",
        "image_size": 32,
        "model": "applications:MobileNetV2",
        "model_option": {"alpha": 0.35},
        "epochs": 1,
        "batch_size": 16,
        "name": "shapes",
    }
    job = service.submit(config)
    detail = service.wait_for(job, "succeeded", "failed")
    assert detail["state"] == "succeeded", detail["message"]
    check_answers(answers(service, "shapes", shapes))
