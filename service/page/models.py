"""The models that the page asks for predictions."""

import contextlib
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from service.serving.inference import find_signature
from service.serving.model_config import versions
from service.serving.saved_model import SavedModel
from service.serving.servables import Servables
from service.serving.signatures import DEFAULT_SIGNATURE
from service.serving.versions import check_files
from training.errors import UserError

CARD = "MODEL_CARD.md"

_GRAPH = "saved_model.pb"
_IMAGES = "images"
_SECONDS = 60.0  # that a prediction may take
_MOST_MODELS = 2  # that are kept in memory besides those that are served


class Models:
    """The versions of all models, those that are not served as well.

    Args:
        base: The directory that holds them.
        servables: The models.
    """

    def __init__(self, base: Path, servables: Servables) -> None:
        self._base = base
        self._servables = servables

    def names(self) -> list[str]:
        """The models that have a version."""
        return sorted(name for name in self._servables.configs if self.versions(name))

    def versions(self, name: str) -> list[int]:
        """The versions of a model, the newest first."""
        return sorted(self._directories(name), reverse=True)

    def classes(self, name: str, version: int, number: int) -> list[str]:
        """The names of a version's classes, from its model card; else their numbers."""
        card = self._directory(name, version) / CARD
        try:
            names = classes_of(card.read_text(encoding="utf-8"))
        except FileNotFoundError:
            names = []
        return names if len(names) == number else [str(i) for i in range(number)]

    def input(self, name: str, version: int) -> tuple[tuple[int | None, ...], str]:
        """The shape, without the batch, and the dtype of the images that it takes.

        Raises:
            UserError: If it does not take images.
        """
        with self._use(name, version) as model:
            inputs = find_signature(model, DEFAULT_SIGNATURE).inputs
        images = inputs.get(_IMAGES)
        if len(inputs) != 1 or images is None or images.shape.rank != 4:
            received = (f"{key} {tensor.shape}" for key, tensor in inputs.items())
            raise UserError(
                f"{name} {version} must take a batch of images named `{_IMAGES}`. "
                f"Received: {', '.join(received)}."
            )
        return tuple(images.shape[1:]), images.dtype.name

    def has(self, name: str, version: int, signature: str) -> bool:
        """Whether a version has a signature."""
        with self._use(name, version) as model:
            return signature in model.signatures

    def predict(
        self, name: str, version: int, signature: str, inputs: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """What a signature of a version answers."""
        with self._use(name, version) as model:
            called = find_signature(model, signature)
            return model.run(called, inputs, called.outputs, _SECONDS)

    @contextlib.contextmanager
    def _use(self, name: str, version: int) -> Iterator[SavedModel]:
        """A version as it is served; one that is not is loaded for the page."""
        directory = self._directory(name, version)
        with contextlib.ExitStack() as stack:
            try:
                _, model = stack.enter_context(self._servables.use(name, version))
            except tf.errors.NotFoundError:
                changed = (directory / _GRAPH).stat().st_mtime_ns
                model = _load(directory, self._base, changed)
            yield model

    def _directory(self, name: str, version: int) -> Path:
        """Where a version lies, if it is one of those that `versions` names."""
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
        return {n: path for n, path in found.items() if (path / _GRAPH).is_file()}


def classes_of(card: str) -> list[str]:
    """The names in the table of classes of a model card."""
    section = card.partition("\n## Classes\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    return [row.split(" | ", 1)[1].removesuffix(" |") for row in rows[1:]]


@functools.lru_cache(maxsize=_MOST_MODELS)
def _load(directory: Path, base: Path, changed: int) -> SavedModel:
    check_files(directory, base)
    return SavedModel(directory)
