"""What goes on inside the model of a finished run."""

import functools
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasnorm import KBatchNorm, KDropout
from service.jobs.store import Job
from training.config import TrainConfig
from training.data.pipeline import load
from training.errors import UserError
from training.run import files

_IMAGES = 256
_MOST_MODELS = 2  # that are kept in memory

# Each mask that is drawn changes the random state of its layer. The lock is held by
# whoever computes, and by nobody who waits for a dataset or a file.
_lock = threading.Lock()


@dataclass(frozen=True)
class Normalization:
    """The inputs and outputs of a batch normalization at inference."""

    name: str
    before: np.ndarray
    after: np.ndarray


@dataclass(frozen=True)
class Units:
    """A layer of units, and which of them a mask keeps if dropout follows it."""

    name: str
    number: int
    kept: np.ndarray | None = None


def normalizations(job: Job) -> list[Normalization]:
    """Return the inputs and outputs of every KBatchNorm of a run's model.

    The model is given test images.

    Raises:
        UserError: If the run or its dataset is no longer there.
    """
    model = _model(job)
    layers = [layer for layer in model.layers if isinstance(layer, KBatchNorm)]
    if not layers:
        return []
    images = _test_images(job)
    ends = [end for layer in layers for end in (layer.input, layer.output)]
    with _lock:
        values = keras.Model(model.inputs[0], ends)(images, training=False)
    arrays = [keras.ops.convert_to_numpy(value).ravel() for value in values]
    return [
        Normalization(layer.name, before, after)
        for layer, before, after in zip(layers, arrays[::2], arrays[1::2], strict=True)
    ]


def thinned(job: Job) -> list[Units]:
    """Return the layers of a run's model under a new mask of each KDropout.

    Raises:
        UserError: If the run is no longer there.
    """
    columns: list[Units] = []
    model = _model(job)
    with _lock:
        for layer in model.layers:
            match layer:
                case keras.layers.InputLayer():
                    number = int(np.prod(layer.output.shape[1:]))
                    columns.append(Units("inputs", number))
                case keras.layers.Dense():
                    columns.append(Units(f"{layer.name}: units", layer.units))
                case keras.layers.Conv2D():
                    columns.append(Units(f"{layer.name}: maps", layer.filters))
                case KDropout():
                    ones = np.ones((1, *layer.input.shape[1:]), "float32")
                    output = keras.ops.convert_to_numpy(layer(ones, training=True))
                    kept = output.ravel() != 0
                    columns[-1] = Units(columns[-1].name, kept.size, kept)
    return columns


def _model(job: Job) -> Any:
    path = job.directory / files.MODEL
    try:
        return _load(path, path.stat().st_mtime_ns)
    except FileNotFoundError as error:
        raise UserError(f"{path} has been removed.") from error


@functools.lru_cache(maxsize=_MOST_MODELS)
def _load(path: Path, changed: int) -> Any:
    return keras.models.load_model(path)


@functools.lru_cache(maxsize=_MOST_MODELS)
def _images(config: str) -> np.ndarray:
    data = load(TrainConfig.model_validate_json(config))
    examples = data.splits["test"].take(_IMAGES).as_numpy_iterator()
    return np.stack([image for image, _ in examples])


def _test_images(job: Job) -> np.ndarray:
    # Whoever looks at the page has nothing fetched.
    config = job.config.model_copy(update={"download": False})
    return _images(config.model_dump_json())
