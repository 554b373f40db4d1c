"""Training in two phases: the head alone, then all layers."""

import itertools
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.runs import variables
from training.cluster.team import Team
from training.compiling import compiled_model
from training.config import TrainConfig
from training.data.pipeline import Data, load
from training.fitting import fit
from training.run import checkpoint, files
from training.run.claim import claim

NET = """
import keras

def net(input_shape, num_classes):
    return keras.Sequential([
        keras.Input(input_shape), keras.layers.Flatten(), keras.layers.Dense(4),
        keras.layers.BatchNormalization(), keras.layers.Dense(num_classes)])
"""
STEPS = 2


@pytest.fixture
def config(few_pictures: Path, tmp_path: Path) -> TrainConfig:
    (tmp_path / "nets.py").write_text(NET)
    return TrainConfig(
        model=f"{tmp_path}/nets.py:net",
        dataset=f"folder:{few_pictures}",
        image_size=8,
        batch_size=45,
        epochs=3,
        train_head=2,
        ema=0.5,
    )


def go_on(config: TrainConfig, data: Data, directory: Path) -> None:
    """Train as `train.py --resume` does."""
    directory.mkdir(exist_ok=True)
    with claim(directory):
        done = checkpoint.newest(directory)
        keras.utils.clear_session()
        model = compiled_model(config, data, done)
        fit(model, config, Team(config), data, directory, done)


def weights(config: TrainConfig, data: Data, directory: Path) -> list[np.ndarray]:
    """Return the weights of the newest checkpoint, the averages of an epoch's end."""
    model = compiled_model(config, data, done := checkpoint.newest(directory))
    path = str(directory / files.CHECKPOINTS / f"ckpt-{done}")
    tf.train.Checkpoint(model=model).restore(path).expect_partial()
    found: list[np.ndarray] = model.get_weights()
    return found


def test_the_head_comes_first_and_a_run_goes_on_from_any_epoch_of_it(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load(config)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    go_on(config, data, whole)

    def stop(checkpoints: Path) -> None:
        raise KeyboardInterrupt

    kept = [compiled_model(config, data).get_weights()]
    for _ in range(2):  # among the head's epochs and at their end
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "sync_tree", stop)  # when one has been written
            with pytest.raises(KeyboardInterrupt):
                go_on(config, data, stopped)
        kept.append(weights(config, data, stopped))
    go_on(config, data, stopped)
    kept.append(weights(config, data, stopped))
    expected, received = variables(whole), variables(stopped)
    assert expected.keys() == received.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(received[name], value, err_msg=name)

    # Neither weight decay nor batch normalization moves what is frozen.
    changed = [
        [not np.array_equal(a, b) for a, b in zip(one, other, strict=True)]
        for one, other in itertools.pairwise(kept)
    ]
    assert changed == [[False] * 6 + [True] * 2] * 2 + [[True] * 8]
    # The optimizer has begun anew with all layers.
    (steps,) = (v for k, v in expected.items() if "optimizer/_iterations" in k)
    assert steps == STEPS
