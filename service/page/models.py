"""The models that the page asks for predictions."""

import contextlib
import gc
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from service.serving.inference import find_signature
from service.serving.model_config import versions
from service.serving.saved_model import SavedModel
from service.serving.servables import Servables
from service.serving.versions import check_files
from training.errors import UserError
from training.run import files

_IMAGES = "images"
_SECONDS = 60.0  # that a prediction may take
_MOST_MODELS = 2  # that are kept in memory beside those that are served


class Models:
    """The versions of all models, whether they are served or not.

    Args:
        base: The directory that holds the models.
        servables: The models that are served.
    """

    def __init__(self, base: Path, servables: Servables) -> None:
        self._base = base
        self._servables = servables
        self._kept = _Kept(_load, _MOST_MODELS)

    def names(self) -> list[str]:
        """Return the names of the models that have a version."""
        return sorted(name for name in self._servables.configs if self.versions(name))

    def versions(self, name: str) -> list[int]:
        """Return the versions of a model, the newest first."""
        return sorted(self._directories(name), reverse=True)

    def classes(self, name: str, version: int, number: int) -> list[str]:
        """Return the names of a version's classes, or their numbers without a card."""
        card = files.model_card(self._directory(name, version))
        names = card.classes if card else []
        return names if len(names) == number else [str(i) for i in range(number)]

    def input(self, name: str, version: int) -> tuple[tuple[int | None, ...], str]:
        """Return the shape, without the batch, and the dtype of a version's images.

        Raises:
            UserError: If the version does not take images.
        """
        with self._use(name, version) as model:
            inputs = find_signature(model, files.DEFAULT_SIGNATURE).inputs
        images = inputs.get(_IMAGES)
        if (
            len(inputs) != 1
            or images is None
            or images.shape.rank != 4
            or not (images.dtype.is_integer or images.dtype.is_floating)
        ):
            received = (f"{k} {t.dtype.name} {t.shape}" for k, t in inputs.items())
            raise UserError(
                f"{name} {version} must take a batch of images of numbers, named "
                f"`{_IMAGES}`. Received: {', '.join(received)}."
            )
        return tuple(images.shape[1:]), images.dtype.name

    def has(self, name: str, version: int, signature: str) -> bool:
        """Return whether a version has a signature."""
        with self._use(name, version) as model:
            return signature in model.signatures

    def predict(
        self, name: str, version: int, signature: str, inputs: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Return the answer of a version's signature."""
        with self._use(name, version) as model:
            called = find_signature(model, signature)
            return model.run(called, inputs, called.outputs, _SECONDS)

    @contextlib.contextmanager
    def _use(self, name: str, version: int) -> Iterator[SavedModel]:
        """Give a version as it is served; if it is not, load it for the page."""
        directory = self._directory(name, version)
        with contextlib.ExitStack() as stack:
            try:
                _, model = stack.enter_context(self._servables.use(name, version))
            except tf.errors.NotFoundError:
                changed = (directory / files.GRAPH).stat().st_mtime_ns
                model = stack.enter_context(
                    self._kept.use(directory, self._base, changed)
                )
            yield model

    def _directory(self, name: str, version: int) -> Path:
        """Return the directory of a version that `versions` names."""
        directory = self._directories(name).get(version)
        if directory is None:
            raise UserError(f"There is no version {version} of a model {name}.")
        return directory

    def _directories(self, name: str) -> dict[int, Path]:
        config = self._servables.configs.get(name)
        try:
            found = versions(config.directory) if config else {}
        except OSError:  # it has been removed
            found = {}
        return {n: path for n, path in found.items() if (path / files.GRAPH).is_file()}


@dataclass
class _Loaded:
    """A model in memory, and how many use it now."""

    model: SavedModel
    users: int = 0


class _Kept:
    """The models that were used last. Others are closed as soon as nobody uses them.

    Args:
        load: Load the model of a key.
        most: How many are kept.
    """

    def __init__(self, load: Callable[..., SavedModel], most: int) -> None:
        self._load = load
        self._most = most
        self._models: OrderedDict[tuple[Any, ...], _Loaded] = OrderedDict()
        self._lock = threading.Lock()
        self._loading = threading.Lock()

    @contextlib.contextmanager
    def use(self, *key: Any) -> Iterator[SavedModel]:
        """Give a model, loaded if need be, and keep it open meanwhile."""
        loaded = self._taken(key)
        if loaded is None:
            with self._loading:  # nobody loads what another one is loading
                loaded = self._taken(key) or self._added(key, self._load(*key))
        try:
            yield loaded.model
        finally:
            with self._lock:
                loaded.users -= 1
            self._close_old()

    def _taken(self, key: tuple[Any, ...]) -> _Loaded | None:
        with self._lock:
            loaded = self._models.get(key)
            if loaded is not None:
                loaded.users += 1
                self._models.move_to_end(key)
            return loaded

    def _added(self, key: tuple[Any, ...], model: SavedModel) -> _Loaded:
        with self._lock:
            self._models[key] = _Loaded(model, users=1)
            return self._models[key]

    def _close_old(self) -> None:
        with self._lock:
            old = [*self._models.items()][: -self._most]
            closed = [self._models.pop(key) for key, each in old if not each.users]
        for loaded in closed:
            loaded.model.close()
        if closed:
            gc.collect()  # their graphs refer to themselves


def _load(directory: Path, base: Path, changed: int) -> SavedModel:
    check_files(directory, base)
    return SavedModel(directory)
