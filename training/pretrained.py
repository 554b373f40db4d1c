"""Weights that training starts from, and layers that it leaves as they are."""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import keras

import kerasnorm
from kerasnorm._keras import all_layers
from kerasnorm.transforms.load import unlike_shapes
from training.errors import UserError, first_line


def take_weights(
    model: keras.Model, path: Path, remade: Callable[[int], keras.Model]
) -> None:
    """Load a file of the same model, of Keras's layers or ours.

    The last layer with weights begins anew where the file has another number of
    classes.

    Args:
        model: The model, which is changed in place.
        path: A `.keras` or `.weights.h5` file.
        remade: Makes the model for another number of classes.

    Raises:
        UserError: If there is no such file, or if it is of another model.
    """
    try:
        if path.suffix == ".keras":
            source = kerasnorm.load_model(path)
        elif classes := _other_classes(model, path):
            source = remade(classes)
            kerasnorm.load_weights(source, path)
        else:
            kerasnorm.load_weights(model, path)
            return
    except (OSError, TypeError, ValueError) as error:
        raise UserError(f"`--weights` is not usable: {first_line(error)}") from error
    _copy(source, model, path)


def _other_classes(model: keras.Model, path: Path) -> int | None:
    """Return the number of classes of a file that has only that otherwise, or None."""
    if not path.is_file():
        return None
    sizes = {
        found[-1] if expected and found and expected[:-1] == found[:-1] else None
        for expected, found in unlike_shapes(model, path).values()
    }
    return sizes.pop() if len(sizes) == 1 else None


def _copy(source: keras.Model, model: keras.Model, path: Path) -> None:
    """Copy the weights layer by layer, but for a head of another number of classes."""
    ours, theirs = ([la for la in _layers(m) if la.weights] for m in (model, source))
    if len(ours) != len(theirs):
        raise UserError(
            f"`--weights` must be a file of the same model. Received: {path}, with "
            f"{len(theirs)} layers that have weights, not {len(ours)}."
        )
    for new, old in zip(ours, theirs, strict=True):
        shapes, found = ([tuple(w.shape) for w in la.weights] for la in (new, old))
        if shapes == found:
            new.set_weights(old.get_weights())
        elif new is ours[-1] and [s[:-1] for s in shapes] == [s[:-1] for s in found]:
            print(f"{new.name} begins anew: the file has {found}, not {shapes}.")
        else:
            raise UserError(
                f"`--weights` must be a file of the same model. Received: {path}, with "
                f"weights of {found} for {new.name!r}, which has {shapes}."
            )


def freeze(model: keras.Model, pattern: str) -> None:
    """Leave every layer as it is in whose name the pattern is found.

    Raises:
        UserError: If it is found in no layer that has weights, or in all.
    """
    layers = [la for la in _layers(model) if la.weights]
    frozen = [la for la in layers if re.search(pattern, la.name)]
    if not frozen or len(frozen) == len(layers):
        names = ", ".join(la.name for la in layers)
        raise UserError(
            f"`--freeze` must be found in the names of some layers, not of "
            f"{'all' if frozen else 'none'}. Received: {pattern}. They are: {names}."
        )
    for layer in frozen:
        layer.trainable = False
    print(f"Frozen: {', '.join(la.name for la in frozen)}")


def head(model: keras.Model) -> keras.layers.Layer:
    """Return the last layer that has weights.

    Raises:
        UserError: If it is frozen.
    """
    last = [la for la in _layers(model) if la.weights][-1]
    if not last.trainable_weights:
        raise UserError(
            "`--train-head` needs a last layer with weights that is trained. Received: "
            f"{last.name!r}, which is frozen."
        )
    return last


@contextlib.contextmanager
def head_alone(model: keras.Model) -> Iterator[None]:
    """Freeze all layers but the head in the block; then each is as it was before."""
    own = head(model)
    before = [(layer, layer.trainable) for layer in all_layers(model)]
    for layer in _layers(model):
        if layer is not own:
            layer.trainable = False
    print(f"Training {own.name} alone", flush=True)
    try:
        yield
    finally:
        # A layer comes before those inside of it, which it thaws with itself.
        for layer, was_trainable in before:
            layer.trainable = was_trainable


def _layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers of a model and of the models in it."""
    inner = [_layers(la) if hasattr(la, "layers") else [la] for la in model.layers]
    return [layer for layers in inner for layer in layers]
