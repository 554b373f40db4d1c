"""The fully connected ReLU network of the dropout paper."""

import keras

from models.blocks import (
    PIXEL_SCALE,
    dropout,
    logits,
    max_norm_constraint,
    norm_relu,
)

# Srivastava et al. (2014), Table 9: 784-1024-1024-2048-10.
PRESETS = {"small": (512, 512), "srivastava2014": (1024, 1024, 2048)}
INPUT_RATE = 0.2


def mlp(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    preset: str = "small",
    norm: bool = True,
    synchronized: bool = False,
    dropout_rate: float = 0.5,
    max_norm: float | None = None,
    scale: float = PIXEL_SCALE,
) -> keras.Model:
    """Build a multilayer perceptron with batch normalization and dropout.

    With normalization, dropout stands after the last normalized layer only. In front
    of a normalization it would make the variance in training differ from that at
    inference (Li et al., arXiv 1801.05134). Without normalization it stands where
    Srivastava et al. (2014) put it: after the input and after every hidden layer.

    Args:
        input_shape: Height, width and channels of the images.
        num_classes: The number of logits.
        preset: The widths of the hidden layers, a key of `PRESETS`.
        norm: Whether to normalize before each nonlinearity.
        synchronized: Whether replicas normalize their batches as one.
        dropout_rate: The fraction of the units dropped; 0 leaves dropout out. The
            input's rate, where it has one, is at most 0.2.
        max_norm: Upper bound of the norm of each hidden unit's incoming weights.
        scale: What the images are multiplied by; the default suits 0 to 255.

    Returns:
        A functional model from images to logits.

    Raises:
        ValueError: If there is no such preset.
    """
    if preset not in PRESETS:
        raise ValueError(
            f"`preset` must be one of {', '.join(PRESETS)}. "
            f"Received: preset={preset!r}."
        )
    images = keras.Input(input_shape, name="images")
    x = keras.layers.Rescaling(scale)(images)
    x = keras.layers.Flatten()(x)
    if not norm:
        x = dropout(x, min(dropout_rate, INPUT_RATE))
    for units in PRESETS[preset]:
        x = keras.layers.Dense(
            units,
            use_bias=not norm,
            kernel_initializer="he_normal",
            kernel_constraint=max_norm_constraint(max_norm),
        )(x)
        x = norm_relu(x, norm, synchronized)
        if not norm:
            x = dropout(x, dropout_rate)
    if norm:
        x = dropout(x, dropout_rate)
    return keras.Model(images, logits(x, num_classes), name="mlp")
