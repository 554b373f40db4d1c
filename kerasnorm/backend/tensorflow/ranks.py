"""Tensors of unknown rank, as `tf.numpy_function` returns them."""

from collections.abc import Callable

import tensorflow as tf

from kerasnorm.functional import Tensor


def on_known_rank(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a function that treats each element of `x` by its place in the flat tensor.

    If the rank of `x` is not known it is applied to the flat tensor.
    """
    x = tf.convert_to_tensor(x)
    if x.shape.rank is not None:
        return function(x)
    return tf.reshape(function(tf.reshape(x, [-1])), tf.shape(x))
