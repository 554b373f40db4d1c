"""The model of a job: its function's arguments, its layers, its file."""

import json
from pathlib import Path

import keras
import pytest

import kerasnorm
from training.cli.command_line import resumed
from training.compiling import compiled_model
from training.config import TrainConfig
from training.data.pipeline import Data, load
from training.errors import UserError
from training.model import check_source, made_model
from training.run import files

NETS = """
import keras

def net(input_shape, num_classes, dropout_rate=0.1, depth=1, scale=1.0):
    return keras.Sequential([
        keras.Input(input_shape), keras.layers.Rescaling(scale),
        keras.layers.Flatten(),
        *(keras.layers.Dense(4) for _ in range(depth)),
        keras.layers.BatchNormalization(), keras.layers.Dropout(dropout_rate),
        keras.layers.Dense(num_classes)])

class Own(keras.layers.Layer):
    def call(self, x):
        return x

def unmade(input_shape, num_classes):
    inputs = keras.Input(input_shape)
    x = keras.layers.BatchNormalization()(keras.layers.Flatten()(inputs))
    class Needs(Own):
        def __init__(self, what):
            super().__init__()
    return keras.Model(inputs, keras.layers.Dense(num_classes)(Needs(3)(x)))
"""


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    path = tmp_path / "nets.py"
    path.write_text(NETS)
    return path


@pytest.fixture(scope="module")
def data(few_pictures: Path) -> Data:
    return load(TrainConfig(dataset=f"folder:{few_pictures}"))


def test_a_function_gets_what_it_declares_and_our_layers(
    nets: Path, data: Data
) -> None:
    config = TrainConfig(
        model=f"{nets}:net", dropout_rate=0.3, model_option={"depth": 2}
    )
    model = made_model(config, data)
    kinds = [type(la).__name__ for la in model.layers]
    assert kinds == [
        *("Rescaling", "Flatten", "Dense", "Dense", "KBatchNorm", "KDropout", "Dense")
    ]
    assert model.layers[0].scale == data.scale
    assert model.layers[-2].rate == 0.3
    left = made_model(config.model_copy(update={"convert": False}), data)
    assert type(left.layers[-2]) is keras.layers.Dropout


def test_what_cannot_be_converted_is_said_and_stays(
    nets: Path, data: Data, capsys: pytest.CaptureFixture[str]
) -> None:
    model = made_model(TrainConfig(model=f"{nets}:unmade"), data)
    assert any(type(la) is keras.layers.BatchNormalization for la in model.layers)
    assert "The model keeps Keras's own layers: " in capsys.readouterr().out


@pytest.mark.parametrize("name", ["mlp", "{}:net"])
def test_layers_get_their_options(nets: Path, data: Data, name: str) -> None:
    config = TrainConfig(
        model=name.format(nets),
        moving_average="debiased",
        virtual_batch_size=8,
        renorm=True,
        scale_at="inference",
    )
    layers = made_model(config, data).layers
    norms = [la for la in layers if isinstance(la, kerasnorm.KBatchNorm)]
    got = {(la.moving_average, la.virtual_batch_size, la.renorm) for la in norms}
    assert got == {("debiased", 8, True)}
    drops = [la for la in layers if isinstance(la, kerasnorm.KDropout)]
    assert {la.scale_at for la in drops} == {"inference"}


INSIDE = """
import keras

class Block(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = keras.layers.BatchNormalization()
    def build(self, shape):
        self.norm.build(shape)
    def call(self, x, training=None):
        return self.norm(x, training=training)

def loaded(input_shape, num_classes):
    model = keras.Sequential([
        keras.Input(input_shape), keras.layers.Flatten(), Block(),
        keras.layers.Dense(num_classes)])
    model.set_weights([7 * keras.ops.ones_like(w) for w in model.weights])
    return model
"""


def test_options_reach_every_layer_and_keep_weights(nets: Path, data: Data) -> None:
    nets.write_text(INSIDE)
    config = TrainConfig(model=f"{nets}:loaded", moving_average="debiased")
    model = made_model(config, data)
    (block,) = (la for la in model.layers if type(la).__name__ == "Block")
    assert block.norm.moving_average == "debiased"
    for weight in (block.norm.gamma, block.norm.moving_mean, *model.layers[-1].weights):
        assert (weight.numpy() == 7).all()


@pytest.mark.parametrize("name", ["cnn", "{}:net"])
def test_half_precision_ends_in_float32(nets: Path, data: Data, name: str) -> None:
    config = TrainConfig(model=name.format(nets), precision="mixed_float16")
    model = compiled_model(config, data)
    images, labels = next(iter(data.batches("train", 8)))
    assert model(images).dtype == "float32"
    inner = next(la for la in model.layers if isinstance(la, keras.layers.Dense))
    assert (inner.compute_dtype, inner.variable_dtype) == ("float16", "float32")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    model.train_on_batch(images, labels)
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"convert": False, "renorm": True}, "`--renorm` needs a model with batch"),
        ({"convert": False, "scale_at": "inference"}, "`--scale-at` is not usable: "),
        (
            {"norm": False},
            "`--norm` needs a model whose function has an argument `norm`",
        ),
        ({"model_option": {"width": 3}}, "`width` must be an argument of "),
        ({"model_option": {"depth": "x"}}, "makes no model: TypeError"),
        (
            {"convert": False, "recalibrate": 9},
            "`--recalibrate` needs a model with batch normalization of kerasnorm",
        ),
        (
            {"convert": False, "monitor": True},
            "`--monitor` needs a model with batch normalization of kerasnorm",
        ),
        (
            {"convert": False, "monte_carlo": 9},
            "`--monte-carlo` is not usable: .*with the Dropout",
        ),
    ],
)
def test_options_that_do_not_fit_the_model(
    nets: Path, data: Data, options: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        made_model(TrainConfig(model=f"{nets}:net", **options), data)
    assert "\n" not in str(caught.value)


def test_an_application_has_our_layers(few_pictures: Path) -> None:
    config = TrainConfig(
        model="applications:MobileNet",
        model_option={"alpha": 0.25},
        dataset=f"folder:{few_pictures}",
        image_size=32,
    )
    model = made_model(config, load(config))
    kinds = {type(la) for la in model.layers}
    assert {kerasnorm.KBatchNorm, kerasnorm.KDropout} < kinds
    assert not kinds & {keras.layers.BatchNormalization, keras.layers.Dropout}


def test_the_file_of_a_model_is_kept_and_a_changed_one_refused(
    nets: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    config = check_source(TrainConfig(model=f"{nets}:net"), run)
    assert (run / files.SOURCE).read_text() == NETS
    assert (
        json.loads((run / files.CONFIG).read_text())["model_hash"] == config.model_hash
    )
    assert check_source(config, run) == config
    nets.write_text(NETS + "\n")
    # A service writes the options anew before each start of a trainer.
    with pytest.raises(UserError, match="which has changed"):
        check_source(TrainConfig(model=f"{nets}:net"), run)
    with pytest.raises(
        UserError, match=r"which has changed\. Put it back, or"
    ) as caught:
        check_source(config, run)
    (told,) = [w for w in str(caught.value).split() if len(w) == 64]
    given = TrainConfig(model_hash=told)
    assert check_source(resumed(run, given), run).model_hash == told
    assert (run / files.SOURCE).read_text() == NETS + "\n"
    (before,) = run.glob("model-*.py")
    assert before.read_text() == NETS
    config = resumed(run, TrainConfig())
    assert check_source(config, run) == config
    nets.unlink()
    with pytest.raises(UserError, match=r"model's file cannot be kept: .*nets\.py"):
        check_source(config, run)
