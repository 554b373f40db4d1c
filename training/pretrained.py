"""Weights that training starts from, and layers that it leaves as they are."""

import re
from pathlib import Path

import keras

import kerasnorm
from training.errors import UserError, first_line


def take_weights(model: keras.Model, path: Path) -> None:
    """Load a file of the same model, of Keras's layers or ours.

    The last layer with weights begins anew where a `.keras` file has another number of
    classes.

    Raises:
        UserError: If there is no such file, or if it is of another model.
    """
    try:
        if path.suffix != ".keras":
            kerasnorm.load_weights(model, path)
            return
        source = kerasnorm.load_model(path)
    except (OSError, TypeError, ValueError) as error:
        raise UserError(f"`--weights` is not usable: {first_line(error)}") from error
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


def _layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers of a model and of the models in it."""
    inner = [_layers(la) if hasattr(la, "layers") else [la] for la in model.layers]
    return [layer for layers in inner for layer in layers]
