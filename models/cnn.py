"""A small convolutional network for images of any size."""

import itertools

import keras

from models.blocks import (
    PIXEL_SCALE,
    dropout,
    logits,
    max_norm_constraint,
    norm_relu,
)

FIRST_WIDTH = 32
LARGEST_WIDTH = 256
HIDDEN_UNITS = 256
LARGEST_MAP = 8


def cnn(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    norm: bool = True,
    synchronized: bool = False,
    dropout_rate: float = 0.5,
    max_norm: float | None = None,
    scale: float = PIXEL_SCALE,
) -> keras.Model:
    """Build a network of stages and a hidden layer.

    A stage is two 3x3 convolutions and a pooling. It halves the image and doubles the
    width. There is at least one, and as many as leave at most 8x8 positions. The very
    first convolution has half the width of its stage.

    Dropout stands after the last normalization. In front of one it would make the
    variance in training differ from that at inference (Li et al., arXiv 1801.05134).
    Without normalization it also follows every pooling, at half the rate.

    Args:
        input_shape: Height, width and channels of the images.
        num_classes: The number of logits.
        norm: Whether to normalize before each nonlinearity.
        synchronized: Whether replicas normalize their batches as one.
        dropout_rate: The fraction of the units dropped; 0 leaves dropout out.
        max_norm: Upper bound of the norm of each unit's incoming weights.
        scale: What the images are multiplied by; the default suits 0 to 255.

    Returns:
        A functional model from images to logits.
    """
    images = keras.Input(input_shape, name="images")
    x = keras.layers.Rescaling(scale)(images)
    for stage in itertools.count():
        width = min(FIRST_WIDTH * 2**stage, LARGEST_WIDTH)
        # At the full size of the image a convolution costs most.
        for filters in (width if stage else width // 2, width):
            x = keras.layers.Conv2D(
                filters,
                3,
                padding="same",
                use_bias=not norm,
                kernel_initializer="he_normal",
                kernel_constraint=max_norm_constraint(max_norm, axis=(0, 1, 2)),
            )(x)
            x = norm_relu(x, norm, synchronized)
        x = keras.layers.MaxPooling2D(padding="same")(x)
        if not norm:
            x = dropout(x, dropout_rate / 2)
        if max(x.shape[1:3]) <= LARGEST_MAP:
            break
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(
        HIDDEN_UNITS,
        use_bias=not norm,
        kernel_initializer="he_normal",
        kernel_constraint=max_norm_constraint(max_norm),
    )(x)
    x = norm_relu(x, norm, synchronized)
    x = dropout(x, dropout_rate)
    return keras.Model(images, logits(x, num_classes), name="cnn")
