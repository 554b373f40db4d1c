"""Random changes of training images, which follow from a seed alone."""

from collections.abc import Callable

import keras
import tensorflow as tf

CROP = 1 / 8  # of a side: four pixels of 32, as for CIFAR
TURN = 1 / 24  # of a full turn: 15 degrees

Change = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
Mix = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def change(policy: str) -> Change:
    """Return a function that changes a batch of images.

    Args:
        policy: `"flip"` mirrors left and right; `"crop"` moves images by up to an
            eighth of their size, over zeros; `"standard"` does both; `"strong"` also
            turns them by up to 15 degrees and erases a rectangle.

    Returns:
        A function of the images, (batch, height, width, channels), and a seed of shape
        (2,). The same seed gives the same images, of the same dtype.
    """
    flip = keras.layers.RandomFlip("horizontal")
    crop = keras.layers.RandomTranslation(
        CROP, CROP, fill_mode="constant", interpolation="nearest"
    )
    turn = keras.layers.RandomRotation(TURN, fill_mode="constant")
    erase = keras.layers.RandomErasing(fill_value=0.0)
    layers = {
        "flip": [flip],
        "crop": [crop],
        "standard": [flip, crop],
        "strong": [flip, turn, crop, erase],
    }[policy]

    def changed(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        seeds = _Seeds(seed)
        x = images
        for layer in layers:
            chosen = layer.get_random_transformation(x, training=True, seed=seeds)
            x = layer.transform_images(x, chosen, training=True)
        return _like(images, x)

    return changed


def mix(alpha: float) -> Mix:
    """Return a function that mixes each image of a batch with another one of it.

    Args:
        alpha: The images' shares are drawn from Beta(alpha, alpha): Zhang et al. 2018.

    Returns:
        A function of the images, their labels as rows, (batch, classes), and a seed as
        `change` takes it. It mixes both by the same shares.
    """
    layer = keras.layers.MixUp(alpha)

    def mixed(
        images: tf.Tensor, rows: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        seeds = _Seeds(tf.random.fold_in(seed, 0))  # `changed` begins with 1
        chosen = layer.get_random_transformation(images, training=True, seed=seeds)
        share = chosen["mix_weight"]
        # Beta(0.01, 0.01) is near 0 or 1. But it is made of two numbers that may both
        # be the smallest one there is.
        chosen["mix_weight"] = tf.where(share == 0.5, 1.0, share)
        x = layer.transform_images(images, chosen, training=True)
        return _like(images, x), layer.transform_labels(rows, chosen, training=True)

    return mixed


def _like(images: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Return x in the dtype and shape of images."""
    if images.dtype.is_integer:
        x = tf.round(x)
    return tf.ensure_shape(tf.saturate_cast(x, images.dtype), images.shape)


class _Seeds(keras.random.SeedGenerator):
    """The seeds that a layer draws, made of one seed and the number of the draw.

    Keras's own generator keeps a variable, which one call after the other changes.
    """

    def __init__(self, seed: tf.Tensor) -> None:
        self._seed, self._draws = seed, 0

    def next(self, ordered: bool = True) -> tf.Tensor:
        """Return the next seed."""
        self._draws += 1
        return tf.random.fold_in(self._seed, self._draws)
