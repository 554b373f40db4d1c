"""The architectures of `keras.applications`, as models from images to logits."""

import inspect
import sys
from collections.abc import Callable
from typing import Any

import keras

from models.blocks import PIXEL_SCALE

APPLICATIONS = "applications:"
"""Before the name of one of them."""

COLOURS = 3

# What `application` decides itself.
_DECIDED = {
    *("classes", "classifier_activation", "include_top", "input_shape"),
    *("input_tensor", "name", "pooling", "weights"),
}


def application(name: str) -> Callable[..., keras.Model]:
    """Return the function that makes an architecture of `keras.applications`.

    Its weights are random. The model takes images as the dataset has them: it repeats
    a single channel three times, and prepares the values as the architecture's own
    `preprocess_input` does.

    Args:
        name: The name of the architecture, `MobileNetV2` for example.

    Returns:
        A function of `input_shape`, `num_classes`, `scale`, which multiplies the
        images to be in [0, 1], and the architecture's own arguments.

    Raises:
        ValueError: If there is no such architecture.
    """
    make = getattr(keras.applications, name, None)
    if not inspect.isfunction(make):
        known = vars(keras.applications).items()
        names = ", ".join(sorted(n for n, v in known if inspect.isfunction(v)))
        raise ValueError(
            f"`{APPLICATIONS}NAME` must name one of {names}. Received: {name!r}."
        )
    prepare = sys.modules[make.__module__].preprocess_input

    def build(
        input_shape: tuple[int, int, int],
        num_classes: int,
        scale: float = PIXEL_SCALE,
        **options: Any,
    ) -> keras.Model:
        images = keras.Input(input_shape, name="images")
        x = keras.layers.Rescaling(255 * scale)(images)
        if input_shape[-1] == 1:
            x = keras.layers.Concatenate()([x] * COLOURS)
        made = make(
            weights=None,
            input_tensor=prepare(x),
            classes=num_classes,
            classifier_activation=None,
            **options,
        )
        # Its inputs are a list, as which `fit` does not give one array.
        return keras.Model(images, made.output, name=made.name)

    *declared, _ = inspect.signature(build).parameters.values()
    own = [
        parameter
        for parameter in inspect.signature(make).parameters.values()
        if parameter.name not in _DECIDED
    ]
    build.__signature__ = inspect.Signature([*declared, *own])  # type: ignore[attr-defined]
    return build
