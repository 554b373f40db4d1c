"""Checks of the arrays that a model is to take: their kind, and their shapes."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import keras

from kerasnorm._keras import reason_of
from kerasnorm._validation import message, wrong_type


def check_arrays(argument: str, value: Any, advice: str = "") -> None:
    """Refuse what is no array or structure of arrays with the same number of samples.

    They are inputs of a model, as `predict` takes them.
    """
    arrays = keras.tree.flatten(value)
    if not arrays or not all(hasattr(array, "shape") for array in arrays):
        domain = "an array or a structure of arrays"
        raise wrong_type(argument, domain, value, advice)
    shapes = [tuple(array.shape) for array in arrays]
    if not all(shape and shape[0] for shape in shapes):
        domain = "a batch with at least one sample"
        raise ValueError(message(argument, domain, shapes, advice))
    if len({shape[0] for shape in shapes}) > 1:
        domain = "arrays with the same number of samples"
        raise ValueError(message(argument, domain, shapes, advice))


def check_inputs_fit(argument: str, model: keras.Model, value: Any) -> None:
    """Refuse arrays that are not of the shapes and kinds of the model's inputs.

    A subclassed model has none that it says.

    As in Keras the size of a batch does not count, and an axis of size 1 at the end may
    be there or not.
    """
    inputs = getattr(model, "inputs", None) if model.built else None
    if not inputs:
        return
    names = [tensor.name for tensor in inputs]
    by_name = isinstance(value, dict) and set(names) <= set(value)
    arrays = [value[n] for n in names] if by_name else keras.tree.flatten(value)
    expected = [(None, *tensor.shape[1:]) for tensor in inputs]
    received = [tuple(array.shape) for array in arrays]
    fits = len(received) == len(expected) and all(
        any(_is_of(shape, form) for form in _forms(ours))
        for shape, ours in zip(received, expected, strict=True)
    )
    if not fits:
        one = len(expected) == 1
        raise ValueError(
            message(
                argument,
                f"of the {'shape' if one else 'shapes'} that {model.name!r} takes, "
                f"{expected[0] if one else expected}",
                received[0] if len(received) == 1 else received,
            )
        )

    for array, tensor in zip(arrays, inputs, strict=True):
        if tensor.dtype != "string" and not _holds_numbers(array):
            domain = f"of numbers, which {model.name!r} takes"
            raise ValueError(message(argument, domain, str(array.dtype)))


@contextlib.contextmanager
def inputs_that_fit(argument: str, model: keras.Model, value: Any) -> Iterator[None]:
    """Say in one line that inputs do not fit, where the model refuses them."""
    try:
        yield
    except (TypeError, ValueError) as error:
        shapes = [tuple(array.shape) for array in keras.tree.flatten(value)]
        raise ValueError(
            message(
                argument,
                f"what {model.name!r} takes",
                shapes[0] if len(shapes) == 1 else shapes,
                f"It says: {reason_of(error)}",
            )
        ) from error


def _holds_numbers(array: Any) -> bool:
    try:
        return bool(keras.backend.standardize_dtype(array.dtype) != "string")
    except ValueError:  # a dtype that Keras does not have
        return False


def _is_of(shape: Iterable[int], to: Iterable[int | None]) -> bool:
    """Return whether an array of `shape` is one of shape `to`; `None` is any size."""
    shape, to = tuple(shape), tuple(to)
    return len(shape) == len(to) and all(
        expected in (None, size) for size, expected in zip(shape, to, strict=True)
    )


def _forms(shape: tuple[int | None, ...]) -> list[tuple[int | None, ...]]:
    """Return the shapes that Keras takes for an input of `shape`."""
    forms = [shape, (*shape, 1)]
    return [*forms, shape[:-1]] if len(shape) > 1 and shape[-1] == 1 else forms
