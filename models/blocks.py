"""The parts that the architectures share."""

import keras

import kerasnorm

PIXEL_SCALE = 1.0 / 255.0


def norm_relu(
    x: keras.KerasTensor, norm: bool, synchronized: bool
) -> keras.KerasTensor:
    """[batch normalization and] ReLU: normalization comes before the nonlinearity."""
    if norm:
        x = kerasnorm.KBatchNorm(synchronized=synchronized)(x)
    return keras.layers.ReLU()(x)


def dropout(x: keras.KerasTensor, rate: float) -> keras.KerasTensor:
    """Dropout, or nothing at all for a rate of 0."""
    return kerasnorm.KDropout(rate)(x) if rate else x


def max_norm_constraint(
    max_norm: float | None, axis: int | tuple[int, ...] = 0
) -> keras.constraints.Constraint | None:
    """Bounds the norm of each unit's incoming weights."""
    if max_norm is None:
        return None
    return keras.constraints.MaxNorm(max_norm, axis=axis)


def logits(x: keras.KerasTensor, num_classes: int) -> keras.KerasTensor:
    """The last layer, in float32 under every dtype policy."""
    return keras.layers.Dense(num_classes, dtype="float32", name="logits")(x)
