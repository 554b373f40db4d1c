"""ResNet-20 for small images: He et al. 2015, arXiv:1512.03385, section 4.2."""

import keras

from kerasnorm import KBatchNorm

BLOCKS = 3
WIDTHS = (16, 32, 64)


def resnet20(input_shape: tuple[int, int, int], num_classes: int) -> keras.Model:
    """Make three stages of three residual blocks, with projections between shapes."""
    images = keras.Input(input_shape)
    x = keras.layers.Rescaling(1 / 255)(images)
    x = keras.layers.ReLU()(_normed_convolution(x, WIDTHS[0]))
    for stage, width in enumerate(WIDTHS):
        for block in range(BLOCKS):
            halves = stage > 0 and block == 0
            x = _residual_block(x, width, strides=2 if halves else 1)
    x = keras.layers.GlobalAveragePooling2D()(x)
    logits = keras.layers.Dense(num_classes)(x)
    return keras.Model(images, logits, name="resnet20")


def _residual_block(
    x: keras.KerasTensor, width: int, strides: int
) -> keras.KerasTensor:
    y = keras.layers.ReLU()(_normed_convolution(x, width, strides))
    y = _normed_convolution(y, width)
    if x.shape != y.shape:
        x = _normed_convolution(x, width, strides, kernel_size=1)
    return keras.layers.ReLU()(keras.layers.Add()([x, y]))


def _normed_convolution(
    x: keras.KerasTensor, width: int, strides: int = 1, kernel_size: int = 3
) -> keras.KerasTensor:
    x = keras.layers.Conv2D(
        width,
        kernel_size,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
    )(x)
    return KBatchNorm()(x)
