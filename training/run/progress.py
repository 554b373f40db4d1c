"""How far a run has come, for whoever looks at it from outside."""

import contextlib
import time
from pathlib import Path

import keras

from training.run import files

_SECONDS_BETWEEN_WRITES = 1.0


class ReportProgress(keras.callbacks.Callback):
    """Says in progress.json, about once a second, how far training has come.

    Args:
        directory: The directory of the run.
        epochs: The number of epochs.
        steps: The number of steps in an epoch.
    """

    async_safe = True  # the logs are not looked at

    def __init__(self, directory: Path, epochs: int, steps: int) -> None:
        super().__init__()
        self._directory = directory
        self._epoch = self._epochs = epochs
        self._steps = steps
        self._next_write = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Remembers the epoch."""
        self._epoch = epoch + 1

    def on_train_batch_end(
        self, batch: int, logs: dict[str, float] | None = None
    ) -> None:
        """Writes where a second has passed since the last time."""
        if time.monotonic() >= self._next_write:
            self._write(batch + 1)
            self._next_write = time.monotonic() + _SECONDS_BETWEEN_WRITES

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Writes the end, whatever the time."""
        self._write(self._steps)

    def _write(self, step: int) -> None:
        progress = files.Progress(
            epoch=self._epoch, epochs=self._epochs, step=step, steps=self._steps
        )
        # Only to be looked at: a full disk must not end the run here.
        with contextlib.suppress(OSError):
            files.write_progress(self._directory, progress)
