"""Save after each epoch everything that a run needs to go on."""

import io
import json
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import kerasnorm
from training.errors import UserError, first_line
from training.run import files
from training.run.atomic import sync_tree
from training.run.claim import check_claim

# Keras's own `BackupAndRestore` saves neither the history nor the state of
# EarlyStopping, and EarlyStopping resets itself when training begins.
_EARLY_STOPPING_STATE = ("wait", "stopped_epoch", "best", "best_epoch")


class RunState(tf.train.experimental.PythonState):
    """The state of a run besides its variables: its history and its callbacks' state.

    Args:
        early_stopping: The run's early stopping, if it has one.
        monitor: The run's monitor, if it has one.
    """

    def __init__(
        self,
        early_stopping: keras.callbacks.EarlyStopping | None,
        monitor: kerasnorm.ShiftMonitor | None,
    ) -> None:
        self.history: list[dict[str, float]] = []
        self.records: list[dict[str, Any]] = []  # of the monitor
        self._step = 0
        self._early_stopping = early_stopping
        self._monitor = monitor
        self._stopping_state: dict[str, Any] = {}
        self._best_weights: list[np.ndarray] | None = None

    @property
    def stopped_early(self) -> bool:
        """Return whether early stopping has ended the run."""
        return bool(self._stopping_state.get("stopped_epoch"))

    def take_from_callbacks(self) -> None:
        """Remember the state of early stopping and of the monitor."""
        if self._early_stopping is not None:
            self._stopping_state = {
                name: getattr(self._early_stopping, name)
                for name in _EARLY_STOPPING_STATE
            }
            self._best_weights = self._early_stopping.best_weights
        if self._monitor is not None:
            self.records = list(self._monitor.history)
            self._step = self._monitor.step

    def give_to_callbacks(self) -> None:
        """Put the state back; call this after their `on_train_begin`."""
        if self._early_stopping is not None and self._stopping_state:
            for name, value in self._stopping_state.items():
                setattr(self._early_stopping, name, value)
            self._early_stopping.best_weights = self._best_weights
        if self._monitor is not None:
            self._monitor.history = list(self.records)
            self._monitor.step = self._step

    def serialize(self) -> bytes:
        """Return the state as `tf.train.Checkpoint` saves it."""
        state = {
            "history": self.history,
            "early_stopping": self._stopping_state,
            "monitor": {"history": self.records, "step": self._step},
        }
        text = np.array(json.dumps(state, default=float))
        buffer = io.BytesIO()
        np.savez(buffer, text, *self._best_weights or ())
        return buffer.getvalue()

    def deserialize(self, serialized: bytes) -> None:
        """Take the state that `tf.train.Checkpoint` has restored."""
        with np.load(io.BytesIO(serialized)) as arrays:
            state, *weights = (arrays[name] for name in arrays.files)
        state = json.loads(str(state))
        self.history = state["history"]
        self._stopping_state = state["early_stopping"]
        monitor = state.get("monitor", {})  # a run of an earlier version has none
        self.records = monitor.get("history", [])
        self._step = monitor.get("step", 0)
        self._best_weights = weights or None


class Checkpoint(keras.callbacks.Callback):
    """Save the run after each epoch, its history and records also as CSV files.

    Put it last among the callbacks, so that it saves what the others have done.

    Args:
        model: The compiled model, its optimizer built.
        state: The state that is saved beside the variables.
        directory: The directory of the run.
        average: The state of the average of the weights, if the run has one.
    """

    def __init__(
        self,
        model: keras.Model,
        state: RunState,
        directory: Path,
        average: tf.train.Checkpoint | None = None,
    ) -> None:
        super().__init__()
        parts = {} if average is None else {"average": average}
        self._state = state
        self._directory = directory
        self._manager = tf.train.CheckpointManager(
            tf.train.Checkpoint(
                model=model, optimizer=model.optimizer, run=state, **parts
            ),
            str(directory / files.CHECKPOINTS),
            max_to_keep=2,
        )

    def restore(self, epochs: int) -> None:
        """Go back to the checkpoint of so many epochs, which `newest` has found.

        Raises:
            UserError: If it is not one of this model.
        """
        if not epochs:
            return
        path = str(Path(self._manager.directory, f"ckpt-{epochs}"))
        try:
            self._manager.checkpoint.restore(path).assert_existing_objects_matched()
        except (AssertionError, ValueError) as error:
            raise UserError(
                f"The checkpoint {path} must be of the model as it is made now. It is "
                "of another one, perhaps an earlier version's. Start a new run."
            ) from error

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Write history.csv anew, without epochs after the checkpoint."""
        # The optimizer of what is trained from now on may be another one.
        self._manager.checkpoint.optimizer = self.model.optimizer
        if self._state.history:
            self._write_history()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Start the epoch's clock."""
        self._epoch_start = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Add the epoch to the history and save."""
        check_claim(self._directory)
        row = {"epoch": epoch + 1, **(logs or {})}
        row["learning_rate"] = float(self.model.optimizer.learning_rate)
        row["seconds"] = round(time.monotonic() - self._epoch_start, 3)
        self._state.history.append(row)
        self._state.take_from_callbacks()
        try:
            self._manager.save(checkpoint_number=epoch + 1)
            sync_tree(self._directory / files.CHECKPOINTS)
            self._write_history()
        except (tf.errors.OpError, OSError) as error:
            raise UserError(
                f"The checkpoint of epoch {epoch + 1} could not be written: "
                f"{first_line(error)}. Make room."
            ) from error

    def _write_history(self) -> None:
        files.write_rows(self._directory / files.HISTORY, self._state.history)
        if self._state.records:
            files.write_rows(self._directory / files.MONITOR, self._state.records)


def newest(directory: Path) -> int:
    """Return how many epochs a run's newest checkpoint has that can be read; or 0."""
    # TensorFlow keeps a list of the checkpoints, but the list may be damaged, too.
    indices = (directory / files.CHECKPOINTS).glob("ckpt-*.index")
    for index in sorted(indices, key=_epochs_of, reverse=True):
        path = str(index.with_suffix(""))
        if _is_readable(path):
            return _epochs_of(index)
        print(f"The checkpoint {path} is damaged; going back to the one before it.")
    return 0


def _epochs_of(index: Path) -> int:
    return int(index.stem.removeprefix("ckpt-"))


def _is_readable(path: str) -> bool:
    """Read a whole checkpoint, so that TensorFlow compares its checksums."""
    try:
        reader = tf.train.load_checkpoint(path)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except (tf.errors.OpError, RuntimeError, ValueError):
        return False
    return True
