"""Record what batch normalization sees while a run trains."""

from pathlib import Path

import numpy as np

import kerasnorm
from training.config import TrainConfig
from training.data.pipeline import Data
from training.run import files

_IMAGES = 256
_BYTES = 2**26  # of these images; of large ones there are fewer, but a whole batch
_RECORDS = 50


def make_monitor(
    config: TrainConfig, data: Data, steps: int
) -> kerasnorm.ShiftMonitor | None:
    """Return the callback that records it on validation images, if it is asked for.

    Args:
        config: The options of the job.
        data: The dataset.
        steps: The number of steps in an epoch.
    """
    if not config.monitor:
        return None
    affordable = max(config.batch_size, _BYTES // data.bytes_of_an_image)
    number = min(_IMAGES, affordable)
    examples = data.splits["validation"].take(number).as_numpy_iterator()
    probe = np.stack([image for image, _ in examples])
    every = max(1, steps * config.epochs // _RECORDS)
    return kerasnorm.ShiftMonitor(probe, frequency=every)


def draw(monitor: kerasnorm.ShiftMonitor, directory: Path) -> None:
    """Draw what has been recorded, if there is a record."""
    if monitor.history:
        monitor.plot(directory / files.MONITOR_PICTURE)
