"""The exported models that the page asks for predictions."""

import functools
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from training.errors import UserError

_MOST_MODELS = 4  # that are kept in memory
CARD = "MODEL_CARD.md"


class Models:
    """The versions of models below a directory: NAME/VERSION/saved_model.pb.

    Args:
        base: The directory.
    """

    def __init__(self, base: Path) -> None:
        self._base = base
        self._lock = threading.Lock()  # no model is loaded twice at once

    def names(self) -> list[str]:
        """The models that have a version."""
        if not self._base.is_dir():
            return []
        names = sorted(path.name for path in self._base.iterdir() if path.is_dir())
        return [name for name in names if self.versions(name)]

    def versions(self, name: str) -> list[int]:
        """The versions of a model, the newest first."""
        files = (self._base / name).glob("*/saved_model.pb")
        numbers = [f.parent.name for f in files if f.parent.name.isdecimal()]
        return sorted(map(int, numbers), reverse=True)

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
        signature = self._signatures(name, version)["serving_default"]
        specs = signature.structured_input_signature[1]
        spec = specs.get("images")
        if len(specs) != 1 or spec is None or spec.shape.rank != 4:
            raise UserError(
                f"{name} {version} must take a batch of images named `images`. "
                f"Received: {', '.join(map(str, specs.values()))}."
            )
        return tuple(spec.shape[1:]), spec.dtype.name

    def has(self, name: str, version: int, signature: str) -> bool:
        """Whether a version has a signature."""
        return signature in self._signatures(name, version)

    def predict(
        self, name: str, version: int, signature: str, inputs: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """What a signature of a version answers."""
        import tensorflow as tf  # takes seconds, and the other tabs do without

        tensors = {key: tf.constant(value) for key, value in inputs.items()}
        answer = self._signatures(name, version)[signature](**tensors)
        return {key: value.numpy() for key, value in answer.items()}

    def _signatures(self, name: str, version: int) -> Mapping[str, Any]:
        path = self._directory(name, version) / "saved_model.pb"
        with self._lock:
            return _load(path.parent, path.stat().st_mtime_ns).signatures

    def _directory(self, name: str, version: int) -> Path:
        """Where a version lies, if it is one of those that `versions` names."""
        if name not in self.names() or version not in self.versions(name):
            raise UserError(f"There is no version {version} of a model {name}.")
        return self._base / name / str(version)


def classes_of(card: str) -> list[str]:
    """The names in the table of classes of a model card."""
    section = card.partition("\n## Classes\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    return [row.split(" | ", 1)[1].removesuffix(" |") for row in rows[1:]]


@functools.lru_cache(maxsize=_MOST_MODELS)
def _load(directory: Path, changed: int) -> Any:
    import tensorflow as tf

    return tf.saved_model.load(str(directory))
