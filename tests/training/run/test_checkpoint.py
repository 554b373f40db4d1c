"""What a checkpoint keeps and gives back."""

import io
import json
from pathlib import Path

import keras
import numpy as np
import pytest

import kerasnorm
from training.run import files
from training.run.checkpoint import Checkpoint, RunState, newest
from training.run.claim import claim


def early_stopping() -> keras.callbacks.EarlyStopping:
    return keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True)


def monitor() -> kerasnorm.ShiftMonitor:
    return kerasnorm.ShiftMonitor(np.zeros((2, 3), "float32"))


@pytest.mark.parametrize("stopped_epoch", [0, 5])
def test_a_state_comes_back_with_everything(stopped_epoch: int) -> None:
    stopping, watching = early_stopping(), monitor()
    stopping.wait, stopping.stopped_epoch = 1, stopped_epoch
    stopping.best, stopping.best_epoch = 0.5, 3
    stopping.best_weights = [np.arange(3.0), np.ones((2, 2))]
    watching.history, watching.step = [{"step": 7, "layer": "a", "mean": 0.5}], 7
    state = RunState(stopping, watching)
    state.history = [{"epoch": 1, "loss": 0.25}]
    state.take_from_callbacks()

    received, seen = early_stopping(), monitor()
    other = RunState(received, seen)
    other.deserialize(state.serialize())
    other.give_to_callbacks()
    assert other.history == state.history
    assert other.stopped_early == bool(stopped_epoch)
    for name in ("wait", "stopped_epoch", "best", "best_epoch"):
        assert getattr(received, name) == getattr(stopping, name)
    for one, another in zip(received.best_weights, stopping.best_weights, strict=True):
        np.testing.assert_array_equal(one, another)
    assert (seen.history, seen.step) == (watching.history, 7)
    assert other.records == watching.history


def test_a_state_from_before_there_was_a_monitor() -> None:
    buffer = io.BytesIO()
    old = {"history": [{"epoch": 1}], "early_stopping": {}}
    np.savez(buffer, np.array(json.dumps(old)))
    state = RunState(early_stopping(), monitor())
    state.deserialize(buffer.getvalue())
    state.give_to_callbacks()
    assert state.history == [{"epoch": 1}]
    assert state.records == []
    assert not state.stopped_early


def checkpoint_in(directory: Path) -> tuple[keras.Model, RunState, Checkpoint]:
    """Return a small compiled model, its state, and what saves them."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.1), "mse")
    model.optimizer.build(model.trainable_variables)
    state = RunState(None, None)
    checkpoint = Checkpoint(model, state, directory)
    checkpoint.set_model(model)
    return model, state, checkpoint


def test_where_the_newest_checkpoint_is_damaged_the_one_before_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, _, checkpoint = checkpoint_in(tmp_path)
    kept = []
    with claim(tmp_path):
        for epoch in range(3):
            checkpoint.on_epoch_begin(epoch)
            model.fit(np.ones((4, 2)), np.zeros((4, 1)), verbose=0)
            checkpoint.on_epoch_end(epoch, {"loss": 1.0 / (epoch + 1)})
            kept.append([np.array(v) for v in model.optimizer.variables])
            kept[-1] += model.get_weights()
    folder = tmp_path / files.CHECKPOINTS
    assert {path.stem for path in folder.glob("*.index")} == {"ckpt-2", "ckpt-3"}
    assert [row["epoch"] for row in files.history(tmp_path)] == [1, 2, 3]
    (data,) = folder.glob("ckpt-3.data*")
    data.write_bytes(b"x" * data.stat().st_size)

    model, state, checkpoint = checkpoint_in(tmp_path)
    checkpoint.restore(newest(tmp_path))
    assert capsys.readouterr().out == (
        f"The checkpoint {folder}/ckpt-3 is damaged; going back to the one before it.\n"
    )
    assert [row["epoch"] for row in state.history] == [1, 2]
    assert files.epochs_finished(tmp_path) == 3
    checkpoint.on_train_begin()  # history.csv goes back as well
    assert [row["epoch"] for row in files.history(tmp_path)] == [1, 2]
    restored = [np.array(v) for v in model.optimizer.variables] + model.get_weights()
    for one, other in zip(restored, kept[1], strict=True):
        np.testing.assert_array_equal(one, other)
