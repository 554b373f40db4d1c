"""Reference architectures: functions that return functional `keras.Model`s."""

from collections.abc import Callable
from typing import Any

import keras

from models.cnn import cnn
from models.mlp import mlp

REGISTRY: dict[str, Callable[..., keras.Model]] = {"cnn": cnn, "mlp": mlp}


def build(
    name: str, input_shape: tuple[int, int, int], num_classes: int, **options: Any
) -> keras.Model:
    """Build a model of the registry.

    Args:
        name: A key of `REGISTRY`.
        input_shape: Height, width and channels of the images.
        num_classes: The number of logits.
        **options: Passed on to the model's function.

    Returns:
        A functional model from images to logits.

    Raises:
        ValueError: If there is no such model.
    """
    if name not in REGISTRY:
        raise ValueError(
            f"`name` must be one of {', '.join(REGISTRY)}. Received: name={name!r}."
        )
    return REGISTRY[name](input_shape, num_classes, **options)
