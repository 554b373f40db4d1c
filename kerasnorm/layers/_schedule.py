"""Arguments that are numbers or schedules. A schedule takes the training steps seen."""

from typing import Any, TypeGuard

import keras
from keras.optimizers.schedules import LearningRateSchedule


def is_schedule(value: Any) -> TypeGuard[LearningRateSchedule]:
    """Return whether `value` is to be called with the count of training steps."""
    return isinstance(value, LearningRateSchedule)


def serialize_schedule(value: Any) -> Any:
    """Return the configuration of a schedule, and a number as it is."""
    return keras.optimizers.schedules.serialize(value) if is_schedule(value) else value


def deserialize_schedule(value: Any) -> Any:
    """Make a schedule from its configuration; return a number as it is."""
    if isinstance(value, dict):
        return keras.optimizers.schedules.deserialize(value)
    return value


def add_step_count(layer: keras.layers.Layer) -> Any:
    """Add the weight that counts the training steps that `layer` has seen."""
    return layer.add_weight(
        shape=(),
        name="steps_seen",
        initializer="zeros",
        dtype="int32",
        trainable=False,
        aggregation="only_first_replica",
    )
