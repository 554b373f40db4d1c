"""Exported models, read by plain TensorFlow."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import kerasnorm
import models
from tests.conftest import REPOSITORY, Run
from training.cli.command_line import load as load_config
from training.config import TrainConfig
from training.data.pipeline import Data, load
from training.errors import UserError
from training.export import export
from training.run import files
from training.run.claim import run_id
from training.run.files import Metrics, Scores

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
import numpy as np
import tensorflow as tf

model = tf.saved_model.load(sys.argv[1])
before = [v.numpy() for v in model.variables]
images = np.load(sys.argv[2])
answers = {}
for count in (1, 7, len(images)):
    answer = model.signatures["serving_default"](images=tf.constant(images[:count]))
    answers |= {f"{name}{count}": value.numpy() for name, value in answer.items()}
after = [v.numpy() for v in model.variables]
assert before and all(np.array_equal(a, b) for a, b in zip(before, after))
assert "keras" not in sys.modules and "kerasnorm" not in sys.modules
np.savez(sys.argv[3], **answers)
"""


def test_plain_tensorflow_predicts_what_the_keras_model_predicts(
    finished: Run, fashion_mnist: Split, tmp_path: Path
) -> None:
    images = fashion_mnist("test")[0][:50]
    np.save(tmp_path / "images.npy", images)
    subprocess.run(
        [
            *(sys.executable, "-c", BLOCK_KERAS + PLAIN_TENSORFLOW),
            str(finished.exports / "mlp-fashion_mnist" / "1"),
            *("images.npy", "answers.npz"),
        ],
        cwd=tmp_path,
        check=True,
    )
    answers = np.load(tmp_path / "answers.npz")
    model = keras.models.load_model(finished.runs / "mlp-fashion_mnist/model.keras")
    logits = model.predict(images, verbose=0)
    odds = np.exp(logits.astype(np.float64))
    for count in (1, 7, 50):
        expected = logits[:count]
        np.testing.assert_allclose(answers[f"logits{count}"], expected, atol=1e-4)
        np.testing.assert_allclose(
            answers[f"probabilities{count}"],
            (odds / odds.sum(axis=1, keepdims=True))[:count],
            atol=1e-5,
        )
        classes = answers[f"classes{count}"]
        assert classes.dtype == np.int64
        assert (classes == expected.argmax(axis=1)).all()


def test_saved_model_cli_shows_the_signature(finished: Run) -> None:
    shown = subprocess.run(
        [
            *(sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", "show"),
            *("--dir", str(finished.exports / "mlp-fashion_mnist" / "1")),
            *("--tag_set", "serve", "--signature_def", "serving_default"),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    shown = " ".join(shown.split())
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


def test_the_model_card(finished: Run) -> None:
    directory = finished.exports / "mlp-fashion_mnist" / "1"
    card = (directory / "MODEL_CARD.md").read_text()
    run = finished.runs / "mlp-fashion_mnist"
    metrics = json.loads((run / "result.json").read_text())["metrics"]
    for split, size in (("train", 57000), ("validation", 3000), ("test", 10000)):
        values = metrics[split]
        row = f"| {split} | {size} | {values['loss']:.4f} | {values['accuracy']:.4f} |"
        assert row in card
    assert "| 9 | Ankle boot |" in card
    assert "fashion_mnist, version 3.0.1" in card
    digest = "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
    assert f"| t10k-images-idx3-ubyte.gz | `{digest}` |" in card
    assert f"- tensorflow {tf.__version__}" in card
    config = re.search(r"```json\n(.*?)```", card, re.DOTALL)
    assert config is not None
    assert TrainConfig.model_validate_json(config[1]).epochs == 1
    read = files.model_card(directory)
    assert read is not None
    assert read.run == run_id(run)
    assert f"Run `{read.run}`" in card
    assert (read.dataset, read.dataset_version) == ("fashion_mnist", "3.0.1")
    assert (len(read.classes), read.classes[9]) == (10, "Ankle boot")
    assert read.metrics == Metrics.model_validate(metrics)
    assert TrainConfig.model_validate(read.options) == load_config(run / files.CONFIG)


@pytest.fixture(scope="module")
def small(pictures: Path) -> tuple[keras.Model, Data]:
    data = load(TrainConfig(dataset=f"folder:{pictures}", image_size=8))
    return models.build("mlp", data.shape, len(data.labels)), data


MONTE_CARLO = """
import numpy as np
import tensorflow as tf

model = tf.saved_model.load(sys.argv[1])
predict = model.signatures["monte_carlo"]
before = [v.numpy() for v in model.variables]

def answer(seed, samples):
    return predict(
        images=tf.constant(np.load(sys.argv[2])),
        seed=tf.constant(seed),
        samples=tf.constant(samples),
    )

answers = {
    f"{name}-{seed}-{samples}-{turn}": value.numpy()
    for seed, samples, turn in ((1, 30, 0), (1, 30, 1), (2, 30, 0), (1, 2, 0))
    for name, value in answer(seed, samples).items()
}
after = [v.numpy() for v in model.variables]
assert before and all(np.array_equal(a, b) for a, b in zip(before, after))
assert "keras" not in sys.modules and "kerasnorm" not in sys.modules
np.savez(sys.argv[3], **answers)
"""


@pytest.fixture(scope="module")
def uncertain(
    pictures: Path,
    run_train_py: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A run of train.py with every option that works on the trained model."""
    root = tmp_path_factory.mktemp("uncertain")
    process = run_train_py(
        *("--dataset", f"folder:{pictures}", "--model", "mlp", "--epochs", 1),
        *("--name", "m", "--recalibrate", 300, "--monte-carlo", 5, "--no-fold"),
        *("--run-dir", "runs", "--export-dir", "exports"),
        cwd=root,
    )
    assert process.returncode == 0, process.stderr
    assert "Recalibrating with 300 training images" in process.stdout
    return root


def test_the_monte_carlo_signature(
    uncertain: Path, fashion_mnist: Split, tmp_path: Path
) -> None:
    images = fashion_mnist("test")[0][:20]
    np.save(tmp_path / "images.npy", images)
    version = uncertain / "exports" / "m" / "1"
    command = [sys.executable, "-c", BLOCK_KERAS + MONTE_CARLO, str(version)]
    subprocess.run([*command, "images.npy", "a.npz"], cwd=tmp_path, check=True)
    answers = np.load(tmp_path / "a.npz")
    for name in ("mean", "variance", "predictive_entropy", "mutual_information"):
        same = answers[f"{name}-1-30-0"], answers[f"{name}-1-30-1"]
        np.testing.assert_array_equal(*same)
        assert not np.array_equal(same[0], answers[f"{name}-2-30-0"])
        assert not np.array_equal(same[0], answers[f"{name}-1-2-0"])
    model = keras.models.load_model(uncertain / "runs" / "m" / "model.keras")
    expected = kerasnorm.monte_carlo(model, images, 400, seed=3, from_logits=True)
    error = np.sqrt(expected.variance / 30)
    assert (abs(answers["mean-1-30-0"] - expected.mean) < 5 * error + 1e-3).all()
    np.testing.assert_allclose(answers["mean-1-30-0"].sum(1), 1, atol=1e-5)
    assert answers["variance-1-30-0"].max() > 1e-4


def test_recalibrated_statistics_are_those_of_the_training_images(
    uncertain: Path, pictures: Path
) -> None:
    model = keras.models.load_model(uncertain / "runs" / "m" / "model.keras")
    data = load(TrainConfig(dataset=f"folder:{pictures}"))
    first = next(la for la in model.layers if isinstance(la, kerasnorm.KBatchNorm))
    hidden = keras.Model(model.inputs, first.input)
    inputs = data.splits["train"].take(300).batch(128).map(lambda images, _: images)
    x = hidden.predict(inputs, verbose=0).astype("float64")
    np.testing.assert_allclose(first.moving_mean, x.mean(0), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(first.moving_variance, x.var(0), rtol=1e-3)


def test_certainty_is_drawn(uncertain: Path) -> None:
    with Image.open(uncertain / "runs" / "m" / "certainty.png") as image:
        assert min(image.size) > 400
        assert (np.asarray(image.convert("L")) < 128).mean() > 0.005


def statistics_in(version: Path) -> list[str]:
    names = [v.name for v in tf.saved_model.load(str(version)).variables]
    return [name for name in names if "moving" in name]


def test_the_model_is_folded_unless_it_is_not_to_be(
    finished: Run, uncertain: Path
) -> None:
    folded = finished.exports / "mlp-fashion_mnist" / "1"
    whole = uncertain / "exports" / "m" / "1"
    assert statistics_in(whole)
    assert not statistics_in(folded)
    card = (folded / "MODEL_CARD.md").read_text()
    assert len(re.findall(r"^- k_batch_norm.*: folded into dense", card, re.M)) == 2
    assert re.search(r"^- k_dropout.*: removed$", card, re.M)
    card = (whole / "MODEL_CARD.md").read_text()
    assert "not folded" in card
    assert "`monte_carlo`: `images` as above" in card


_SCORES = Scores(accuracy=0.5, loss=1.0)
METRICS = Metrics(train=_SCORES, validation=_SCORES, test=_SCORES)


def write(small: tuple[keras.Model, Data], directory: Path, run: str = "first") -> Path:
    config = TrainConfig(name="small", export_dir=directory, image_size=8)
    return export(*small, config, METRICS, run)


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


FULL_DISK = """
import resource, sys
from pathlib import Path
import models
from training.config import TrainConfig
from training.data.pipeline import load
from training.errors import UserError
from training.export import export
from training.run.files import Metrics, Scores

scores = Scores(accuracy=0.5, loss=1.0)
metrics = Metrics(train=scores, validation=scores, test=scores)
config = TrainConfig(dataset="folder:" + sys.argv[1], export_dir=sys.argv[2], name="m")
data = load(config)
model = models.build("mlp", data.shape, len(data.labels))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    export(model, data, config, metrics, "staging")
except UserError as error:
    sys.exit(f"error: {error}")
"""


@pytest.mark.parametrize("room", [1000, 300_000])
def test_no_half_version_is_left_where_there_is_no_room(
    pictures: Path, tmp_path: Path, room: int
) -> None:
    process = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(pictures), str(tmp_path), str(room)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1
    line = process.stderr.splitlines()[-1]
    assert line.startswith(f"error: The model could not be exported to {tmp_path}/m: ")
    assert "Traceback" not in process.stderr
    assert list((tmp_path / "m").iterdir()) == []
