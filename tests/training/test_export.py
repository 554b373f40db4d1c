"""Exported models, read by plain TensorFlow."""

import hashlib
import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import kerasnorm
import models
from tests.training.runs import Disk
from training import job
from training.cli.command_line import load as load_config
from training.config import TrainConfig
from training.data.pipeline import Data, load, resize
from training.errors import UserError
from training.export import export
from training.run import files
from training.run.claim import run_id
from training.run.files import Measures, Metrics, Scores

Split = Callable[[str], tuple[np.ndarray, np.ndarray]]

BLOCK_KERAS = """
import importlib.machinery
import sys

class Block:
    '''TensorFlow asks where Keras lies when it starts; executing it must fail.'''

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("kerasnorm", "keras", "models", "training"):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        raise ImportError(spec.name)

sys.meta_path.insert(0, Block())
"""

PLAIN_TENSORFLOW = """
import runpy
import numpy as np
import tensorflow as tf

folded, whole = sys.argv[1:]
images = np.load("images.npy")
answers = {}

def variables(model):
    values = [v.numpy() for v in model.variables]
    assert values
    return values

model = tf.saved_model.load(folded)
before = variables(model)
for count in (1, 7, len(images)):
    answer = model.signatures["serving_default"](images=tf.constant(images[:count]))
    answers |= {f"{name}{count}": value.numpy() for name, value in answer.items()}
assert all(map(np.array_equal, before, variables(model)))

model = tf.saved_model.load(whole)
before = variables(model)
for seed, samples, turn in ((1, 30, 0), (1, 30, 1), (2, 30, 0), (1, 2, 0)):
    answer = model.signatures["monte_carlo"](
        images=tf.constant(images),
        seed=tf.constant(seed),
        samples=tf.constant(samples),
    )
    answers |= {
        f"{name}-{seed}-{samples}-{turn}": value.numpy()
        for name, value in answer.items()
    }
assert all(map(np.array_equal, before, variables(model)))

assert "keras" not in sys.modules and "kerasnorm" not in sys.modules
np.savez("answers.npz", **answers)
sys.argv = ["saved_model_cli", "show", "--dir", folded]
sys.argv += ["--tag_set", "serve", "--signature_def", "serving_default"]
runpy.run_module("tensorflow.python.tools.saved_model_cli", run_name="__main__")
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, few_pictures: Path) -> Path:
    """A run of the MLP on a hundred pictures; only its name is Fashion-MNIST's."""
    root = tmp_path_factory.mktemp("finished")
    options = {"model": "mlp", "epochs": 2, "batch_size": 16}
    options |= {"name": "mlp-fashion_mnist", "dataset": f"folder:{few_pictures}"}
    options |= {"run_dir": root / "runs", "export_dir": root / "exports"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "draw", lambda *arguments: None)
        job.train(TrainConfig(**options))
    return root


@dataclass(frozen=True)
class Plain:
    """What a process with TensorFlow alone has answered and printed."""

    images: np.ndarray
    answers: Mapping[str, np.ndarray]
    output: str


@pytest.fixture(scope="module")
def plain(
    finished: Path,
    whole: Path,
    fashion_mnist: Split,
    tmp_path_factory: pytest.TempPathFactory,
) -> Plain:
    place = tmp_path_factory.mktemp("plain")
    images = fashion_mnist("test")[0][:10]
    np.save(place / "images.npy", images)
    process = subprocess.run(
        [
            *(sys.executable, "-c", BLOCK_KERAS + PLAIN_TENSORFLOW),
            str(finished / "exports" / "mlp-fashion_mnist" / "1"),
            str(whole / "exports" / "cnn" / "1"),
        ],
        cwd=place,
        check=True,
        capture_output=True,
        text=True,
    )
    return Plain(images, np.load(place / "answers.npz"), process.stdout)


def test_plain_tensorflow_predicts_what_the_keras_model_predicts(
    finished: Path, plain: Plain
) -> None:
    model = keras.models.load_model(finished / "runs" / "mlp-fashion_mnist/model.keras")
    logits = model.predict(plain.images, verbose=0)
    odds = np.exp(logits.astype(np.float64))
    for count in (1, 7, 10):
        expected = logits[:count]
        np.testing.assert_allclose(plain.answers[f"logits{count}"], expected, atol=1e-4)
        np.testing.assert_allclose(
            plain.answers[f"probabilities{count}"],
            (odds / odds.sum(axis=1, keepdims=True))[:count],
            atol=1e-5,
        )
        classes = plain.answers[f"classes{count}"]
        assert classes.dtype == np.int64
        assert (classes == expected.argmax(axis=1)).all()


def test_saved_model_cli_shows_the_signature(plain: Plain) -> None:
    shown = " ".join(plain.output.split())
    assert (
        "inputs['images'] tensor_info: dtype: DT_UINT8 shape: (-1, 28, 28, 1)" in shown
    )
    for output, dtype, shape in (
        ("classes", "DT_INT64", "(-1)"),
        ("logits", "DT_FLOAT", "(-1, 10)"),
        ("probabilities", "DT_FLOAT", "(-1, 10)"),
    ):
        assert (
            f"outputs['{output}'] tensor_info: dtype: {dtype} shape: {shape}" in shown
        )


def test_the_model_card(finished: Path, few_pictures: Path) -> None:
    directory = finished / "exports" / "mlp-fashion_mnist" / "1"
    card = (directory / "MODEL_CARD.md").read_text()
    run = finished / "runs" / "mlp-fashion_mnist"
    metrics = json.loads((run / "result.json").read_text())["metrics"]
    for split, size in (("train", 90), ("validation", 5), ("test", 5)):
        values = metrics[split]
        row = f"| {split} | {size} | {values['loss']:.4f} | {values['accuracy']:.4f} |"
        assert row in card
    assert "| 9 | class9 |" in card
    assert f"folder:{few_pictures}, version 100 pictures" in card
    digest = hashlib.sha256()
    for path in sorted(few_pictures.glob("*/*")):
        name = "/".join(("train", *path.parts[-2:]))
        digest.update(name.encode() + b"\0" + path.read_bytes())
    assert f"| all pictures | `{digest.hexdigest()}` |" in card
    assert f"- tensorflow {tf.__version__}" in card
    config = re.search(r"```json\n(.*?)```", card, re.DOTALL)
    assert config is not None
    assert TrainConfig.model_validate_json(config[1]).epochs == 2
    read = files.model_card(directory)
    assert read is not None
    assert read.run == run_id(run)
    assert f"Run `{read.run}`" in card
    assert read.dataset == f"folder:{few_pictures}"
    assert read.dataset_version == "100 pictures"
    assert read.classes == [f"class{index}" for index in range(10)]
    assert read.metrics == Metrics.model_validate(metrics)
    assert TrainConfig.model_validate(read.options) == load_config(run / files.CONFIG)


@pytest.fixture(scope="module")
def small(few_pictures: Path) -> tuple[keras.Model, Data]:
    data = load(TrainConfig(dataset=f"folder:{few_pictures}", image_size=8))
    return models.build("mlp", data.shape, len(data.labels)), data


def test_the_monte_carlo_signature(whole: Path, plain: Plain) -> None:
    answers = plain.answers
    for name in ("mean", "variance", "predictive_entropy", "mutual_information"):
        same = answers[f"{name}-1-30-0"], answers[f"{name}-1-30-1"]
        np.testing.assert_array_equal(*same)
        assert not np.array_equal(same[0], answers[f"{name}-2-30-0"])
        assert not np.array_equal(same[0], answers[f"{name}-1-2-0"])
    model = keras.models.load_model(whole / "runs" / "cnn" / "model.keras")
    images = resize(tf.constant(plain.images), (8, 8)).numpy()  # as it was trained
    expected = kerasnorm.monte_carlo(model, images, 400, seed=3, from_logits=True)
    error = np.sqrt(expected.variance / 30)
    assert (abs(answers["mean-1-30-0"] - expected.mean) < 5 * error + 1e-3).all()
    np.testing.assert_allclose(answers["mean-1-30-0"].sum(1), 1, atol=1e-5)
    assert answers["variance-1-30-0"].max() > 1e-4


def test_recalibrated_statistics_are_those_of_the_training_images(
    whole: Path, few_pictures: Path
) -> None:
    """Of all 60: `whole` was recalibrated with as many images."""
    model = keras.models.load_model(whole / "runs" / "cnn" / "model.keras")
    options = {"validation_split": 0.2, "image_size": 8}
    data = load(TrainConfig(dataset=f"folder:{few_pictures}", **options))
    first = next(la for la in model.layers if isinstance(la, kerasnorm.KBatchNorm))
    hidden = keras.Model(model.inputs, first.input)
    inputs = data.splits["train"].take(60).batch(60).map(lambda images, _: images)
    x = hidden.predict(inputs, verbose=0).astype("float64")
    axes = (0, 1, 2)
    np.testing.assert_allclose(first.moving_mean, x.mean(axes), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(first.moving_variance, x.var(axes), rtol=1e-3)


def test_certainty_is_drawn(whole: Path) -> None:
    with Image.open(whole / "runs" / "cnn" / "certainty.png") as image:
        assert min(image.size) > 400
        assert (np.asarray(image.convert("L")) < 128).mean() > 0.005


def statistics_in(version: Path) -> list[str]:
    names = [v.name for v in tf.saved_model.load(str(version)).variables]
    return [name for name in names if "moving" in name]


def test_the_model_is_folded_unless_it_is_not_to_be(
    finished: Path, whole: Path
) -> None:
    folded = finished / "exports" / "mlp-fashion_mnist" / "1"
    unfolded = whole / "exports" / "cnn" / "1"
    assert statistics_in(unfolded)
    assert not statistics_in(folded)
    card = (folded / "MODEL_CARD.md").read_text()
    assert len(re.findall(r"^- k_batch_norm.*: folded into dense", card, re.M)) == 2
    assert re.search(r"^- k_dropout.*: removed$", card, re.M)
    card = (unfolded / "MODEL_CARD.md").read_text()
    assert "not folded" in card
    (measured,) = [
        each
        for each in files.result(whole / "runs" / "cnn").test.classes
        if each.name == "class3"
    ]
    shares = f"{measured.precision:.4f} | {measured.recall:.4f} | {measured.f1:.4f}"
    assert f"| class3 | {shares} | {measured.images} |" in card
    assert "`monte_carlo`: `images` as above" in card


_SCORES = Scores(accuracy=0.5, loss=1.0)
METRICS = Metrics(train=_SCORES, validation=_SCORES, test=_SCORES)
MEASURES = Measures(top_5_accuracy=1.0, calibration_error=0.1, classes=[])


def write(small: tuple[keras.Model, Data], directory: Path, run: str = "first") -> Path:
    config = TrainConfig(name="small", export_dir=directory, image_size=8)
    return export(*small, config, METRICS, MEASURES, run)


def test_versions_are_counted_up_and_nothing_is_overwritten(
    small: tuple[keras.Model, Data], tmp_path: Path
) -> None:
    for name in ("2", "10", "notes", ".incomplete-second"):
        (tmp_path / "small" / name).mkdir(parents=True)
        (tmp_path / "small" / name / "kept").touch()
    assert write(small, tmp_path) == tmp_path / "small" / "11"
    assert write(small, tmp_path, "second") == tmp_path / "small" / "12"
    # A run that is killed after its export and resumed does not export once more.
    assert write(small, tmp_path) == tmp_path / "small" / "11"
    names = {path.name for path in (tmp_path / "small").iterdir()}
    assert names == {"2", "10", "11", "12", "notes"}  # the leftover has gone
    assert [path.name for path in (tmp_path / "small" / "10").iterdir()] == ["kept"]


def test_images_of_any_size_are_resized_inside(
    small: tuple[keras.Model, Data], tmp_path: Path
) -> None:
    served = tf.saved_model.load(write(small, tmp_path)).signatures["serving_default"]
    constant = np.full((2, 8, 8, 1), 90, np.uint8)
    expected = small[0].predict(constant, verbose=0)
    for height, width in ((8, 8), (5, 31), (100, 40)):
        images = tf.fill((2, height, width, 1), tf.constant(90, tf.uint8))
        np.testing.assert_allclose(served(images=images)["logits"], expected, atol=1e-4)


def test_an_unwritable_directory_is_named(
    small: tuple[keras.Model, Data], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"could not be exported to .*file/below"):
        write(small, tmp_path / "file" / "below")


def test_a_version_gets_its_number_when_all_of_it_is_on_the_disk(
    small: tuple[keras.Model, Data], tmp_path: Path, disk: Disk
) -> None:
    version = write(small, tmp_path)
    staging = version.with_name(".incomplete-first")
    renamed = disk.events.index(("rename", staging))
    synced = {path for kind, path in disk.events[:renamed] if kind == "sync"}
    names = {path.relative_to(version) for path in version.rglob("*")}
    assert len(names) > 5
    assert {staging, *(staging / name for name in names)} <= synced
    after = disk.events[renamed + 1 :]
    assert {("sync", version.parent), ("sync", tmp_path)} <= set(after)


@pytest.mark.parametrize("room", [1000, 300_000])
def test_no_half_version_is_left_where_there_is_no_room(
    small: tuple[keras.Model, Data], tmp_path: Path, room: int
) -> None:
    """The operating system limits the size of a file for a moment."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, most))
    try:
        with pytest.raises(UserError) as caught:
            write(small, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    message = str(caught.value)
    assert message.startswith(f"The model could not be exported to {tmp_path}/small: ")
    assert "\n" not in message
    assert list((tmp_path / "small").iterdir()) == []
