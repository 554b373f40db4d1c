"""Steps on the TensorFlow backend."""

import importlib.util
from typing import Any

import keras
import tensorflow as tf

from benchmarks.steps.cases import Case, arrays, make_layer
from benchmarks.timing import Step

HAS_GRAPHS = True
"""Whether there are graphs with and without XLA, for known and unknown batches."""

DEVICE = "cpu"
"""No GPU can be measured where this was written; tensors are where TensorFlow is.
"""


def compiled_step(case: Case, layer: keras.Layer) -> Any:
    """Make the step: a `tf.function` of x and dy.

    In training it returns y and the gradients with respect to x, gamma and beta, since
    TensorFlow does not compute what is not returned.
    """
    batch, *rest = case.shape
    spec = tf.TensorSpec((batch if case.known_batch else None, *rest), case.dtype)
    layer.build(spec.shape)

    def train(x: tf.Tensor, dy: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        sources = [x, *(weight.value for weight in layer.trainable_weights)]
        return [y, *tape.gradient(y, sources, dy)]

    def infer(x: tf.Tensor, dy: tf.Tensor) -> list[tf.Tensor]:
        return [layer(x, training=False)]

    return tf.function(
        train if case.training else infer,
        input_signature=[spec, spec],
        jit_compile=case.xla,
        autograph=False,
    )


def layer_step(case: Case, library: str) -> Step:
    """Make the compiled step of our layer or of Keras's."""
    step = compiled_step(case, make_layer(case, library))
    x, dy = (tf.cast(values, case.dtype) for values in arrays(case))
    return lambda: step(x, dy)


def native_steps(case: Case) -> dict[str, Step]:
    """Make PyTorch's steps, if it is installed and TensorFlow's graph is ordinary."""
    if importlib.util.find_spec("torch") is None or case.xla or not case.known_batch:
        return {}
    from benchmarks.steps import torch

    return torch.native_steps(case)


def copy_step(case: Case) -> Step:
    """Make a step that reads and writes as many bytes as the input has.

    It takes them for float32, since TensorFlow computes slowly in half precision.
    """
    num_bytes = case.elements * tf.as_dtype(case.dtype).size
    x, one = tf.ones([num_bytes // 4]), tf.ones([])
    add = tf.function(lambda x, one: x + one, autograph=False)
    return lambda: add(x, one)
