"""The files beside the SavedModel: what they answer, and that none is left half."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kerasnorm
import models
from training import formats
from training.config import TrainConfig
from training.data.pipeline import Data, load
from training.errors import UserError
from training.export import export
from training.run.files import Measures, Metrics, Scores

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

_SCORES = Scores(accuracy=0.5, loss=1.0)
METRICS = Metrics(train=_SCORES, validation=_SCORES, test=_SCORES)
MEASURES = Measures(top_5_accuracy=1.0, calibration_error=0.1, classes=[])
PACKAGES = {
    "onnx": ("tf2onnx", "onnxruntime"),
    "litert": ("ai_edge_litert.interpreter",),
    "openvino": ("openvino",),
}


@pytest.fixture(scope="module")
def small(few_pictures: Path) -> tuple[keras.Model, Data]:
    data = load(TrainConfig(dataset=f"folder:{few_pictures}", image_size=8))
    return models.build("mlp", data.shape, len(data.labels)), data


def write(small: tuple[keras.Model, Data], directory: Path, **options: Any) -> Path:
    config = TrainConfig(name="small", export_dir=directory, image_size=8, **options)
    return export(*small, config, METRICS, MEASURES, "run")


@pytest.mark.slow
@pytest.mark.parametrize("name", formats.FORMATS)
def test_a_version_has_a_file_of_the_format_and_says_how_to_run_it(
    small: tuple[keras.Model, Data], tmp_path: Path, name: str
) -> None:
    for package in PACKAGES[name]:
        pytest.importorskip(package)
    version = write(small, tmp_path, export_format=name, monte_carlo=2)
    kind = formats.FORMATS[name]
    path = version / f"model{kind.suffix}"
    assert (version / "saved_model.pb").is_file()
    model, data = small
    images = np.random.default_rng(0).integers(0, 255, (3, *data.shape), "uint8")
    answers = kind.run(path, {"images": images})
    logits = model.predict(images, verbose=0)
    np.testing.assert_allclose(answers["logits"], logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(answers["classes"], logits.argmax(-1))
    random = version / f"monte_carlo{kind.suffix}"
    for seed in (1, -7):
        call = {"images": images, "seed": np.array([seed], "int32")}
        expected = kerasnorm.monte_carlo(model, images, 2, seed, from_logits=True)
        averages = kind.run(random, call)
        for field, value in expected._asdict().items():
            np.testing.assert_allclose(averages[field], value, atol=1e-5)
    card = (version / "MODEL_CARD.md").read_text()
    assert f"| `{path.name}` | " in card
    assert f"| `{random.name}` | " in card
    assert f'("{path.name}"' in card


class Wrong:
    """A converter and a runtime that need no package and answer wrongly."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def run(self, path: Path, inputs: formats.Answers) -> formats.Answers:
        if isinstance(self.answer, Exception):
            raise self.answer
        size = len(inputs["images"])
        classes = np.zeros(size, "int32")
        return {"classes": classes, **{n: v[:size] for n, v in self.answer.items()}}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"probabilities": np.eye(10)[:, :10]}, r"answers otherwise than the Keras"),
        ({"probabilities": np.ones((10, 1))}, r"answers otherwise .* by inf\."),
        ({"probabilities": np.full((10, 10), np.nan)}, r"answers otherwise .* by nan"),
        (RuntimeError("no such operation\nand more"), r"as onnx: no such operation\.$"),
    ],
)
def test_a_file_that_answers_otherwise_is_not_published(
    small: tuple[keras.Model, Data],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: Any,
    message: str,
) -> None:
    kind = formats.FORMATS["onnx"]._replace(
        keras_name="tf_saved_model", run=Wrong(answer).run
    )
    monkeypatch.setitem(formats.FORMATS, "onnx", kind)
    with pytest.raises(UserError, match=message) as caught:
        write(small, tmp_path, export_format="onnx")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "small").iterdir()) == []


def test_a_missing_package_is_named_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = formats.FORMATS["onnx"]._replace(packages=("no_such_package",))
    monkeypatch.setitem(formats.FORMATS, "onnx", kind)
    with pytest.raises(UserError, match="onnx needs the package no_such_package"):
        formats.check_packages(TrainConfig(export_format="savedmodel,onnx"))
    formats.check_packages(TrainConfig())


@pytest.mark.parametrize(
    ("given", "beside"),
    [
        ("savedmodel", ()),
        ("onnx", ("onnx",)),
        ("savedmodel,litert,onnx,litert", ("litert", "onnx")),
    ],
)
def test_formats_of_the_option(given: str, beside: tuple[str, ...]) -> None:
    assert TrainConfig(export_format=given).export_formats == beside


@pytest.mark.parametrize("given", ["", "coreml", "onnx,", "onnx litert"])
def test_unknown_formats(given: str) -> None:
    with pytest.raises(ValueError, match="export_format"):
        TrainConfig(export_format=given)
