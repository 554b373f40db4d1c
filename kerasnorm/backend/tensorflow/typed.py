"""Functions of TensorFlow that take functions, with types, and who compiles them."""

import functools
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


@functools.cache
def compile_for_features(function: Callable[..., T], features: int) -> Callable[..., T]:
    """Compile `function` for tensors with so many features and any number of rows.

    It is traced once. XLA compiles it for each number of rows, in a tenth of a second.
    """
    compiled: Callable[..., T] = tf.function(
        function, jit_compile=True, autograph=False, reduce_retracing=True
    )
    return compiled


def is_under_xla() -> bool | Any:
    """Return whether XLA compiles what is being traced; XLA decides it as it compiles.

    No public function tells. `DeviceIndex` gives the index of the device that runs it,
    and the length of its list of devices under XLA.
    """
    if tf.executing_eagerly():
        return False
    names = ["CPU", "GPU"]
    return tf.raw_ops.DeviceIndex(device_names=names) == len(names)
