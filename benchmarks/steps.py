"""One step of one layer: ours, Keras's or PyTorch's, or a copy of the input."""

import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import kerasnorm
from benchmarks.timing import Step
from training.machine import num_cores

try:
    import torch
except ImportError:
    torch = None

RATE = 0.3
MOMENTUM, EPSILON = 0.99, 1e-3
LAYERS = {
    "batch_norm": {
        "kerasnorm": kerasnorm.KBatchNorm,
        "keras": keras.layers.BatchNormalization,
    },
    "dropout": {"kerasnorm": kerasnorm.KDropout, "keras": keras.layers.Dropout},
}
COPIES = {"batch_norm": 4, "dropout": 2}
"""How many pairs of a read and a write of the whole tensor a training step needs.

Batch normalization: read x for the moments; read x, write y; read x and dy for the
sums; read x and dy, write dx. Dropout: read x, write y; read dy, write dx.
"""


@dataclass(frozen=True)
class Case:
    """What is timed: one layer on one tensor in one way.

    Attributes:
        layer: A key of `LAYERS`.
        shape: The input's shape.
        dtype: The input's dtype; the weights are float32.
        xla: Whether XLA compiles the whole step.
        known_batch: Whether the batch size is known while tracing.
        training: Whether forward and backward are timed, or inference.
        axis: The channels' axis.
    """

    layer: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    xla: bool = False
    known_batch: bool = True
    training: bool = True
    axis: int = -1

    @property
    def elements(self) -> int:
        """Return the number of elements of the input."""
        return math.prod(self.shape)

    @property
    def copies(self) -> int:
        """Return the floor, in times that the tensor is read and written once."""
        return COPIES[self.layer] if self.training else 1


def make_layer(case: Case, library: str) -> keras.Layer:
    """Make a layer of ours or of Keras's."""
    policy = case.dtype if case.dtype == "float32" else f"mixed_{case.dtype}"
    make = LAYERS[case.layer][library]
    if case.layer == "dropout":
        return make(RATE, seed=1, dtype=policy)
    return make(axis=case.axis, momentum=MOMENTUM, epsilon=EPSILON, dtype=policy)


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


def tensorflow_step(case: Case, library: str) -> Step:
    """Make the compiled step of our layer or of Keras's."""
    step = compiled_step(case, make_layer(case, library))
    x, dy = (tf.cast(values, case.dtype) for values in arrays(case))
    return lambda: step(x, dy)


def torch_step(case: Case, channels_last: bool = False) -> Step:
    """Make the step in PyTorch, which has two memory layouts for images."""
    torch.set_num_threads(num_cores())
    dtype = getattr(torch, case.dtype)
    channels = case.shape[case.axis]
    x, dy = (
        _torch_tensor(values, case.axis, channels_last).to(dtype)
        for values in arrays(case)
    )
    if case.layer == "dropout":
        layer = torch.nn.Dropout(RATE)
    elif x.ndim == 4:
        layer = torch.nn.BatchNorm2d(channels, EPSILON, 1 - MOMENTUM)
    else:
        layer = torch.nn.BatchNorm1d(channels, EPSILON, 1 - MOMENTUM)
    layer.train(case.training)

    def train() -> list[Any]:
        y = layer(x)
        return [y, *torch.autograd.grad(y, [x, *layer.parameters()], dy)]

    def infer() -> list[Any]:
        with torch.inference_mode():
            return [layer(x)]

    x.requires_grad_(case.training)
    return train if case.training else infer


def copy_step(case: Case) -> Step:
    """Make a step that reads and writes as many bytes as the input has.

    It takes them for float32, since TensorFlow computes slowly in half precision.
    """
    num_bytes = case.elements * tf.as_dtype(case.dtype).size
    x, one = tf.ones([num_bytes // 4]), tf.ones([])
    add = tf.function(lambda x, one: x + one, autograph=False)
    return lambda: add(x, one)


def candidates(case: Case) -> dict[str, Step]:
    """Make all candidates of a case; PyTorch is one in ordinary graphs only."""
    found = {library: tensorflow_step(case, library) for library in LAYERS[case.layer]}
    if torch is not None and not case.xla and case.known_batch:
        if len(case.shape) == 4:
            found["torch NCHW"] = torch_step(case)
            found["torch NHWC"] = torch_step(case, channels_last=True)
        else:
            found["torch"] = torch_step(case)
    found["copy"] = copy_step(case)
    return found


def arrays(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Return x, neither centred nor of unit variance, and dy, both float32."""
    rng = np.random.default_rng(0)
    x = 3 + 2 * rng.standard_normal(case.shape, dtype="float32")
    return x, rng.standard_normal(case.shape, dtype="float32")


def _torch_tensor(values: np.ndarray, axis: int, channels_last: bool) -> Any:
    tensor = torch.from_numpy(np.moveaxis(values, axis, 1))
    if channels_last:
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor.contiguous()
