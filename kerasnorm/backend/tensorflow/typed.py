"""Functions of TensorFlow that take functions, with types."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import tensorflow as tf

P = ParamSpec("P")
T = TypeVar("T")


def custom_gradient(
    function: Callable[P, tuple[T, Callable[..., Any]]],
) -> Callable[P, T]:
    """Decorate a function that returns its outputs and their backward pass."""
    outputs: Callable[P, T] = tf.custom_gradient(function)
    return outputs


def cond(condition: bool | Any, yes: Callable[[], T], no: Callable[[], T]) -> T:
    """Call `tf.cond`, or one function alone where tracing knows the condition."""
    if isinstance(condition, bool):
        return yes() if condition else no()
    outputs: T = tf.cond(condition, yes, no)
    return outputs
