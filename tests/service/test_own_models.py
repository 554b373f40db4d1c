"""Models and pictures of one's own at the service, from a folder to an answer."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import requests
import tensorflow as tf
from PIL import Image

import kerasnorm  # noqa: F401  (registers the layers)
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


def pictures(shapes: Path) -> list[np.ndarray]:
    """Return two pictures of different sizes."""
    paths = (shapes / "disc" / "000.png", shapes / "cross" / "001.png")
    first, second = (np.asarray(Image.open(path)) for path in paths)
    assert first.shape != second.shape
    return [first, second]


def answers(service: Service, name: str, shapes: Path) -> dict[str, Any]:
    """Ask the served model for the pictures, one after the other."""
    url = f"{service.url}/v1/models/{name}"
    wait_until(lambda: requests.get(url, timeout=60).ok)
    found = []
    for pixels in pictures(shapes):
        answer = requests.post(
            f"{url}:predict", json={"instances": [pixels.tolist()]}, timeout=60
        )
        assert answer.ok, answer.text
        found += answer.json()["predictions"]
    return {key: np.array([each[key] for each in found]) for key in found[0]}


def expected_logits(
    run: Path, make: Callable[[], keras.Model], shapes: Path
) -> np.ndarray:
    """Compute the logits in float64, with Keras's own layers and the run's weights."""
    trained = keras.saving.load_model(run / "model.keras", compile=False)
    keras.config.set_dtype_policy("float64")
    try:
        model = make()
    finally:
        keras.config.set_dtype_policy("float32")
    model.set_weights(trained.get_weights())
    # As in training, where they are rounded to pixels.
    resized = [tf.image.resize(p, (32, 32), antialias=True) for p in pictures(shapes)]
    return model.predict(np.round(resized), verbose=0)


def check_answers(found: dict[str, Any], logits: np.ndarray) -> None:
    """Compare with the truth.

    float32 has a relative error of 6e-8 in each operation. Some sixty layers in turn,
    whose sums have hundreds of terms, give 1e-5 of the largest logit at most; another
    picture gives a difference a hundred times as large.
    """
    tolerance = 1e-5 * abs(logits).max()
    assert abs(logits[0] - logits[1]).max() > 100 * tolerance
    np.testing.assert_allclose(found["logits"], logits, rtol=0, atol=tolerance)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(found["probabilities"], probabilities, atol=tolerance)
    np.testing.assert_array_equal(found["classes"], logits.argmax(1))


def own() -> keras.Model:
    """Make the model of the user's file, as Keras does it."""
    names: dict[str, Any] = {}
    exec(NETS, names)
    model: keras.Model = names["small"]((32, 32, 3), 4, width=16)
    return model


def mobile_net() -> keras.Model:
    """Make MobileNetV2, which takes values from -1 to 1."""
    images = keras.Input((32, 32, 3))
    network = keras.applications.MobileNetV2(
        alpha=0.35,
        weights=None,
        input_tensor=keras.layers.Rescaling(1 / 127.5, -1)(images),
        classes=4,
        classifier_activation=None,
    )
    return keras.Model(images, network.output)


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
    logits = expected_logits(service.run(job), own, shapes)
    check_answers(answers(service, "own", shapes), logits)


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
        "batch_size": 32,
        "recalibrate": 32,  # or the network would answer the same for all pictures
        "name": "shapes",
    }
    job = service.submit(config)
    detail = service.wait_for(job, "succeeded", "failed")
    assert detail["state"] == "succeeded", detail["message"]
    logits = expected_logits(service.run(job), mobile_net, shapes)
    check_answers(answers(service, "shapes", shapes), logits)
