"""Calls that TensorFlow repeats for their gradient."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from kerasnorm.backend.generic import is_called_by


def is_second_pass() -> bool:
    """Return whether `tf.recompute_grad` calls its function again."""
    return is_called_by(
        {("tensorflow.python.ops.custom_gradient", "inner_recompute_grad")}
    )


def remat(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that is computed again for its gradient."""
    repeated: Callable[..., Any] = tf.recompute_grad(function)
    return repeated
