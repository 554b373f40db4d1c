"""Tell other processes how far a run has come."""

import contextlib
import time
from pathlib import Path

import keras

from training.run import files
from training.run.heartbeat import beat, count_steps_alone

_SECONDS_BETWEEN_WRITES = 1.0


class ReportProgress(keras.callbacks.Callback):
    """Write about once a second how far training has come, into progress.json.

    Args:
        directory: The directory of the run.
        epochs: The number of epochs.
        steps: The number of steps in an epoch.
    """

    async_safe = True  # it does not read the logs

    def __init__(self, directory: Path, epochs: int, steps: int) -> None:
        super().__init__()
        self._directory = directory
        self._epoch = self._epochs = epochs
        self._steps = steps
        self._next_write = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Remember the epoch."""
        self._epoch = epoch + 1

    def on_train_batch_begin(
        self, batch: int, logs: dict[str, float] | None = None
    ) -> None:
        """Let only steps count, but for the first and the last one of an epoch.

        The first one of all is compiled, and so is the last one if it is smaller.
        """
        count_steps_alone(0 < batch < self._steps - 1)

    def on_train_batch_end(
        self, batch: int, logs: dict[str, float] | None = None
    ) -> None:
        """Write if a second has passed since the last time."""
        if time.monotonic() >= self._next_write:
            self._write(batch + 1)
            self._next_write = time.monotonic() + _SECONDS_BETWEEN_WRITES

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Write the end in any case."""
        count_steps_alone(False)
        self._write(self._steps)

    def _write(self, step: int) -> None:
        progress = files.Progress(
            epoch=self._epoch, epochs=self._epochs, step=step, steps=self._steps
        )
        beat(self._directory)
        # The run does not need this file, so a full disk must not end it here.
        with contextlib.suppress(OSError):
            files.write_progress(self._directory, progress)
