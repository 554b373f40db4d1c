"""Models by name: the reference models, `keras.applications`, anyone's function."""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import keras

from models.applications import APPLICATIONS, application
from models.cnn import cnn
from models.mlp import mlp

Build = Callable[..., keras.Model]

REGISTRY: dict[str, Build] = {"cnn": cnn, "mlp": mlp}


def find(name: str) -> Build:
    """Return the function that makes a model.

    Args:
        name: A key of `REGISTRY`, `applications:NAME`, `FILE.py:FUNCTION` or
            `PACKAGE.MODULE:FUNCTION`. The code of the last two is run.

    Returns:
        A function of `input_shape` (height, width, channels), `num_classes` and what
        else `arguments` names.

    Raises:
        ValueError: If there is no such model, or its code fails.
    """
    if name in REGISTRY:
        return REGISTRY[name]
    place, _, function = name.rpartition(":")
    if not place or not function:
        raise ValueError(
            f"`name` must be one of {', '.join(REGISTRY)}, applications:NAME, "
            f"FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION. Received: name={name!r}."
        )
    if f"{place}:" == APPLICATIONS:
        return application(function)
    found = getattr(_imported(place), function, None)
    if not callable(found):
        raise ValueError(f"{place} must have a function {function!r}. It has none.")
    build: Build = found
    return build


def source(name: str) -> Path | None:
    """Return the file whose code makes the model; `None` for a model of Keras or ours.

    Raises:
        ValueError: If there is no such module.
    """
    place, _, _ = name.rpartition(":")
    if not place or f"{place}:" == APPLICATIONS:
        return None
    if place.endswith(".py"):
        return Path(place)
    file = _imported(place).__file__
    return Path(file) if file else None


def arguments(build: Build) -> set[str]:
    """Return the arguments that a model's function declares beside the two of all."""
    declared = inspect.signature(build).parameters.values()
    named = {
        p.name for p in declared if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    }
    return named - {"input_shape", "num_classes"}


def build(
    name: str,
    input_shape: tuple[int, int, int],
    num_classes: int,
    **options: Any,
) -> keras.Model:
    """Make a model by name, and see that it is one from images to logits.

    Args:
        name: As `find` takes it.
        input_shape: Height, width and channels of the images.
        num_classes: The number of logits.
        **options: Other arguments of the model's function.

    Raises:
        ValueError: If there is no such model, if its function lacks an argument or
            fails, or if what it returns is no such model.
    """
    function = find(name)
    _check_arguments(name, function, options)
    try:
        model = function(input_shape=input_shape, num_classes=num_classes, **options)
    except Exception as error:
        raise ValueError(f"{name} makes no model: {_reason(error)}") from error
    _check_model(name, model, input_shape, num_classes)
    return model


def _check_arguments(name: str, function: Build, options: Mapping[str, Any]) -> None:
    known = arguments(function)
    for option in options:
        if option not in known:
            takes = ", ".join(sorted(known)) or "none"
            raise ValueError(
                f"`{option}` must be an argument of {name}. It takes: {takes}."
            )


def _check_model(
    name: str, model: Any, input_shape: tuple[int, int, int], num_classes: int
) -> None:
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"{name} must return a Keras model. Received: {type(model).__name__}."
        )
    if not model.built and isinstance(model, keras.Sequential):
        model.build((None, *input_shape))
    if not getattr(model, "outputs", None):
        raise ValueError(
            f"{name} must return a Sequential or functional model. Received: "
            f"{type(model).__name__}, a subclassed one."
        )
    expected = (None, *input_shape), (None, num_classes)
    received = model.input_shape, model.output_shape
    if received != expected:
        raise ValueError(
            f"{name} must return a model from images {expected[0]} to logits "
            f"{expected[1]}. Received: one from {received[0]} to {received[1]}."
        )
    last = model.layers[-1]
    if getattr(last, "activation", None) is keras.activations.softmax:
        raise ValueError(
            f"{name} must return a model to logits. Received: one whose last layer, "
            f"{last.name!r}, is a softmax. Leave the activation out."
        )


def _imported(place: str) -> ModuleType:
    """Run a file or import a module; what lies beside it can be imported there."""
    is_file = place.endswith(".py")
    beside = str(Path(place).parent if is_file else Path.cwd())
    if beside not in sys.path:
        sys.path.insert(0, beside)
    try:
        if not is_file:
            return importlib.import_module(place)
        name = f"models of {place}"
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, place)
            assert spec is not None  # a name that ends in .py has one
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module  # where dataclasses look for it
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[name]
                raise
        return sys.modules[name]
    except Exception as error:
        raise ValueError(f"{place} cannot be imported: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    said = str(error).strip().partition("\n")[0].rstrip(".")
    return f"{type(error).__name__}: {said}." if said else f"{type(error).__name__}."
