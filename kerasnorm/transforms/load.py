"""Files of Keras's layers into ours and back: `load_model`, `load_weights`."""

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from kerasnorm import _keras
from kerasnorm._validation import message
from kerasnorm.layers._random import RandomLayer
from kerasnorm.transforms._configs import check_is_model
from kerasnorm.transforms._layers import COUNTERPARTS
from kerasnorm.transforms.convert import convert

SEED_STATE = "seed_state"
"""The name in a file of a dropout layer's random state, which Keras's lack."""

Unlike = dict[str, tuple[tuple[int, ...] | None, tuple[int, ...] | None]]
"""The shapes that a model and a file have at a place; None where there is nothing."""


def load_model(
    path: str | Path,
    custom_objects: dict[str, Any] | None = None,
    safe_mode: bool = True,
) -> keras.Model:
    """Load a `.keras` file, whatever layers it has, as a model of this package's.

    That is `convert` of the model, with all that the file holds: weights, random state,
    the optimizer's slots, assets. `keras.saving.load_model` does for files of models
    whose layers are all in the graph. What the code of a custom layer makes, it makes
    of Keras's layers, whatever they were converted to.

    Args:
        path: The file.
        custom_objects: Classes and functions by name, as for `keras.saving.load_model`.
        safe_mode: Whether to refuse lambdas. Defaults to `True`.

    Returns:
        The model, compiled as it was.

    Raises:
        ValueError: If there is no such file, if the model cannot be converted, or if
            the file lacks something of the model or has more.

    Example:

    >>> import keras, kerasnorm, tempfile
    >>> model = keras.Sequential([
    ...     keras.Input((8,)), keras.layers.Dense(4), keras.layers.Dropout(0.5)])
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     model.save(f"{directory}/model.keras")
    ...     ours = kerasnorm.load_model(f"{directory}/model.keras")
    >>> [type(layer).__name__ for layer in ours.layers]
    ['Dense', 'KDropout']
    """
    path = _checked(path, (".keras",))
    with _readable(path):
        model = _keras.model_of_file(path, custom_objects, safe_mode)
    load_weights(model, path)
    ours = convert(model)
    # Keras's dropout layers have not taken the random state.
    load_weights(ours, path)
    return ours


def load_weights(model: keras.Model, path: str | Path) -> None:
    """Load a file of Keras's layers into ours, or of ours into Keras's.

    Keras names what is in a file after the layers' classes, so `model.load_weights`
    does not find what a `BatchNormalization` has learnt for a `KBatchNorm`. This does.
    Names and shapes are compared before anything is loaded. A file of Keras's layers
    has no random state: the model's own stays. Keras's layers do not take that of ours.

    Args:
        model: Any built Keras model, which is changed in place.
        path: A `.weights.h5` or `.keras` file of the same model, its layers being
            Keras's, this package's, or as those of `model`.

    Raises:
        ValueError: If there is no such file, or if it lacks something of the model or
            has more, such as the weights of an option that Keras's layer lacks.

    Example:

    >>> import keras, kerasnorm, tempfile
    >>> def model_with(norm):
    ...     return keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), norm])
    >>> theirs = model_with(keras.layers.BatchNormalization())
    >>> ours = model_with(kerasnorm.KBatchNorm())
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     theirs.save_weights(f"{directory}/theirs.weights.h5")
    ...     kerasnorm.load_weights(ours, f"{directory}/theirs.weights.h5")
    >>> bool((ours.get_weights()[0] == theirs.get_weights()[0]).all())
    True
    """
    check_is_model(model)
    path = _checked(path, (".weights.h5", ".keras"))
    if not model.built:
        raise ValueError(
            f"`model` must be built. Received: {model.name!r}, which is not. Give it "
            "an input shape, or call it once."
        )
    names, unlike = _best_names(model, path)
    if unlike:
        place, shapes = next(iter(unlike.items()))
        expected, found = ("no" if shape is None else shape for shape in shapes)
        raise ValueError(
            message(
                "path",
                f"a file of what {model.name!r} has learnt",
                str(path),
                f"It has {found} for {expected} at {place!r}. Make the model as that "
                "of the file was.",
            )
        )
    with _named(model, names):
        _keras.load_state(model, path)


def unlike_shapes(model: keras.Model, path: Path) -> Unlike:
    """Return the shapes that a file has otherwise than a built model."""
    return _best_names(model, path)[1]


def _best_names(model: keras.Model, path: Path) -> tuple[dict[Any, Any], Unlike]:
    """Return the names of classes by which a file fits best, and what does not fit."""
    with _readable(path):
        in_file = _keras.shapes_in_file(path)
    tried = []
    for names in _NAMES:
        with _named(model, names):
            tried.append((names, _unlike(_keras.shapes_to_save(model), in_file)))
    return min(tried, key=lambda each: len(each[1]))


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say in one line that a file is damaged."""
    try:
        yield
    except (OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
        domain = "a whole file that Keras has saved"
        raise ValueError(
            message("path", domain, str(path), f"It says: {_keras.reason_of(error)}")
        ) from error


def _checked(path: str | Path, endings: tuple[str, ...]) -> Path:
    if not str(path).endswith(endings) or not Path(path).is_file():
        domain = f"an existing {' or '.join(endings)} file"
        raise ValueError(message("path", domain, str(path)))
    return Path(path)


def _unlike(expected: _keras.Shapes, found: _keras.Shapes) -> Unlike:
    """Return what a file lacks, has otherwise or has besides."""

    def counts(name: str) -> bool:
        # Keras itself warns where the state of an optimizer does not fit.
        return not name.startswith("optimizer/") and not name.endswith(SEED_STATE)

    names = sorted(filter(counts, expected.keys() | found.keys()))
    return {
        name: (expected.get(name), found.get(name))
        for name in names
        if expected.get(name) != found.get(name)
    }


def _ignore(self: keras.layers.Layer, store: Any) -> None:
    """Load nothing: in place of `load_own_variables` of Keras's dropout layers."""


_AS_THEY_ARE: dict[Any, Any] = {
    theirs: type(theirs.__name__, (theirs,), {"load_own_variables": _ignore})
    for theirs, ours in COUNTERPARTS.items()
    if issubclass(ours, RandomLayer)
}
_AS_KERAS: dict[Any, Any] = {
    ours: type(theirs.__name__, (ours,), {}) for theirs, ours in COUNTERPARTS.items()
}
_AS_OURS: dict[Any, Any] = {
    theirs: type(ours.__name__, (_AS_THEY_ARE.get(theirs, theirs),), {})
    for theirs, ours in COUNTERPARTS.items()
}
_NAMES = (_AS_THEY_ARE, _AS_THEY_ARE | _AS_KERAS, _AS_OURS)
"""Classes that behave as others do and have the names by which a file knows them."""


@contextlib.contextmanager
def _named(model: keras.Model, names: dict[Any, Any]) -> Iterator[None]:
    """Let layers have other names of classes, by which Keras finds them in a file."""
    renamed = [la for la in _keras.all_layers(model) if type(la) in names]
    kinds = [type(layer) for layer in renamed]
    try:
        for layer in renamed:
            _keras.set_class(layer, names[type(layer)])
        yield
    finally:
        for layer, kind in zip(renamed, kinds, strict=True):
            _keras.set_class(layer, kind)
