"""The models that the page asks, served or not."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("simdjson", reason="pip install --group serve")

from service.page.models import Models
from service.serving.saved_model import SavedModel
from service.serving.servables import Servables
from tests.service.serving.served import save_scale
from training.config import TrainConfig
from training.data.pipeline import load
from training.errors import UserError
from training.export import export
from training.run.files import Measures, Metrics, Scores

SCORES = Scores(accuracy=0.5, loss=1.0)
METRICS = Metrics(train=SCORES, validation=SCORES, test=SCORES)
MEASURES = Measures(top_5_accuracy=1.0, calibration_error=0.1, classes=[])


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory, few_pictures: Path) -> Path:
    """The export of a model of the pictures, as train.py writes it."""
    directory = tmp_path_factory.mktemp("exports")
    config = TrainConfig(
        dataset=f"folder:{few_pictures}", export_dir=directory, name="clothes"
    )
    model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(10))
    export(model, load(config), config, METRICS, MEASURES, "a run")
    return directory


def test_the_models_are_those_that_are_exported(exports: Path) -> None:
    models = Models(exports, Servables(exports))
    (exports / "empty").mkdir(exist_ok=True)
    assert models.names() == ["clothes"]
    assert models.versions("clothes") == [1]
    assert models.input("clothes", 1) == ((28, 28, 1), "uint8")
    assert not models.has("clothes", 1, "monte_carlo")
    assert models.classes("clothes", 1, 10) == [f"class{i}" for i in range(10)]


def test_without_a_card_classes_are_numbers(exports: Path, tmp_path: Path) -> None:
    version = tmp_path / "clothes" / "1"
    shutil.copytree(exports / "clothes" / "1", version)
    for card in ("MODEL_CARD.md", "model_card.json"):
        (version / card).unlink()
    models = Models(tmp_path, Servables(tmp_path))
    assert models.classes("clothes", 1, 3) == ["0", "1", "2"]


def test_a_model_of_a_config_file_is_that_of_its_base_path(tmp_path: Path) -> None:
    """Not that of the directory that has its name."""
    pytest.importorskip("tensorflow_serving", reason="no extra `grpc`")
    save_scale(tmp_path / "two" / "0001", 2)
    save_scale(tmp_path / "three" / "1", 3)
    config = tmp_path / "models.config"
    config.write_text('model_config_list { config { name: "three" base_path: "two" } }')
    servables = Servables(tmp_path, config)
    models = Models(tmp_path, servables)
    inputs = {"x": np.ones(1, "float32")}
    assert (models.names(), models.versions("three")) == (["three"], [1])
    assert models.predict("three", 1, "", inputs)["y"] == [2]
    servables.start()
    assert servables.wait_until_settled(60)
    assert models.predict("three", 1, "", inputs)["y"] == [2]
    servables.stop()


def test_what_lies_elsewhere_is_not_loaded(tmp_path: Path) -> None:
    save_scale(tmp_path / "elsewhere" / "1", 2)
    (tmp_path / "base" / "m").mkdir(parents=True)
    (tmp_path / "base" / "m" / "1").symlink_to(tmp_path / "elsewhere" / "1")
    models = Models(tmp_path / "base", Servables(tmp_path / "base"))
    assert models.versions("m") == [1]
    with pytest.raises(tf.errors.PermissionDeniedError, match="leads out of"):
        models.predict("m", 1, "", {"x": np.ones(1, "float32")})


@pytest.mark.parametrize(
    ("name", "version"), [("../exports/clothes", 1), ("clothes", 2)]
)
def test_no_other_directory_is_read(exports: Path, name: str, version: int) -> None:
    with pytest.raises(UserError, match="There is no version"):
        Models(exports, Servables(exports)).input(name, version)


class Counted(SavedModel):
    """A model that tells which are open, and that is closed once and when unused."""

    opened: ClassVar[list[Path]] = []

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.running = 0
        self.opened.append(directory)
        super().__init__(directory)

    def run(self, *arguments: Any) -> dict[str, np.ndarray]:
        self.running += 1
        assert self.directory in self.opened
        try:
            return super().run(*arguments)
        finally:
            self.running -= 1

    def close(self) -> None:
        assert not self.running
        self.opened.remove(self.directory)
        super().close()


def test_models_that_are_not_served_are_closed_when_others_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.page import models as room

    monkeypatch.setattr(room, "SavedModel", Counted)
    monkeypatch.setattr(room, "_MOST_MODELS", 1)
    for name in "ab":
        save_scale(tmp_path / name / "1", ord(name))
    models = Models(tmp_path, Servables(tmp_path))

    def ask(name: str) -> None:
        x = {"x": np.ones(1, "float32")}
        assert models.predict(name, 1, "", x)["y"] == [ord(name)]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, "ababab"))
    ask("a")
    ask("b")
    assert [path.parent.name for path in Counted.opened] == ["b"]
    # A version that was written anew is loaded anew, and the old one is closed.
    (graph,) = tmp_path.glob("b/1/saved_model.pb")
    os.utime(graph, ns=(1, 1))
    ask("b")
    assert len(Counted.opened) == 1
