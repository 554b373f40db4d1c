"""The parts that the architectures share."""

import keras

import kerasnorm

PIXEL_SCALE = 1.0 / 255.0


def norm_relu(
    x: keras.KerasTensor, norm: bool, synchronized: bool
) -> keras.KerasTensor:
    """Apply ReLU; if `norm`, normalize first."""
    if norm:
        x = kerasnorm.KBatchNorm(synchronized=synchronized)(x)
    return keras.layers.ReLU()(x)


def dropout(x: keras.KerasTensor, rate: float) -> keras.KerasTensor:
    """Apply dropout; for a rate of 0 add no layer."""
    return kerasnorm.KDropout(rate)(x) if rate else x


def max_norm_constraint(
    max_norm: float | None, axis: int | tuple[int, ...] = 0
) -> keras.constraints.Constraint | None:
    """Return what bounds the norm of each unit's incoming weights, or `None`."""
    if max_norm is None:
        return None
    return keras.constraints.MaxNorm(max_norm, axis=axis)


def logits(x: keras.KerasTensor, num_classes: int) -> keras.KerasTensor:
    """Apply the last layer, in float32 under every dtype policy."""
    return keras.layers.Dense(num_classes, dtype="float32", name="logits")(x)
