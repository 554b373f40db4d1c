"""What is timed: a layer on a tensor, in one way, on Keras's backend."""

import math
from dataclasses import dataclass

import keras
import numpy as np

import kerasnorm

RATE = 0.3
MOMENTUM, EPSILON = 0.99, 1e-3
LAYERS = {
    "batch_norm": {
        "kerasnorm": kerasnorm.KBatchNorm,
        "keras": keras.layers.BatchNormalization,
    },
    "dropout": {"kerasnorm": kerasnorm.KDropout, "keras": keras.layers.Dropout},
    "gaussian_dropout": {
        "kerasnorm": kerasnorm.KGaussianDropout,
        "keras": keras.layers.GaussianDropout,
    },
    "spatial_dropout": {
        "kerasnorm": kerasnorm.KSpatialDropout,
        "keras": keras.layers.SpatialDropout2D,
    },
}
COPIES_OF_BATCH_NORM, COPIES_OF_DROPOUT = 4, 2
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
        if not self.training:
            return 1
        is_norm = self.layer == "batch_norm"
        return COPIES_OF_BATCH_NORM if is_norm else COPIES_OF_DROPOUT


def make_layer(case: Case, library: str) -> keras.Layer:
    """Make a layer of ours or of Keras's."""
    policy = case.dtype if case.dtype == "float32" else f"mixed_{case.dtype}"
    make = LAYERS[case.layer][library]
    if case.layer != "batch_norm":
        return make(RATE, seed=1, dtype=policy)
    return make(axis=case.axis, momentum=MOMENTUM, epsilon=EPSILON, dtype=policy)


def arrays(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Return x, neither centred nor of unit variance, and dy, both float32."""
    rng = np.random.default_rng(0)
    x = 3 + 2 * rng.standard_normal(case.shape, dtype="float32")
    return x, rng.standard_normal(case.shape, dtype="float32")


def describe(case: Case) -> str:
    """Return a case in a few words."""
    words = [
        case.layer.replace("_", " "),
        str(case.shape),
        "" if case.dtype == "float32" else case.dtype,
        "channels first" if case.axis == 1 else "",
        "XLA" if case.xla else "",
        "" if case.known_batch else "batch unknown",
        "" if case.training else "inference",
    ]
    return " ".join(word for word in words if word)
