"""Data and the small trainings that the figures are drawn from."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

import kerasnorm
from experiments.data import first_of_archive

CLASSES = (
    "T-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "boot",
)
SEED = 0
EPOCHS = 60
FEW = 1000
"""Training images of the networks that shall overfit."""

UNSEEN = 2000
"""Test images that judge a network."""

HIDDEN = 256
INPUT_RATE, HIDDEN_RATE = 0.2, 0.5


@functools.cache
def fashion_mnist(part: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first images, (count, 784) in [0, 1], and labels of an archive.

    Args:
        part: `"train"` or `"t10k"`.
        count: How many.
    """
    split = first_of_archive(part, count)
    return split.images.reshape(-1, 784).astype("float32") / 255, split.labels


class AfterSteps(keras.callbacks.Callback):
    """Calls `look` with the number of steps, before the first and every so often."""

    def __init__(self, look: Callable[[int], Any], every: int) -> None:
        super().__init__()
        self.look, self.every, self.step = look, every, 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Look before the first step."""
        self.look(0)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count the step and look, if it is time."""
        self.step += 1
        if self.step % self.every == 0:
            self.look(self.step)


def compiled(layers: list[Any], optimizer: Any) -> keras.Model:
    """Compile a classifier of the layers, with logits."""
    model = keras.Sequential(layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def judged(
    model: keras.Model, images: np.ndarray, labels: np.ndarray
) -> tuple[float, float]:
    """Return loss and accuracy at inference."""
    logits = model(images, training=False)
    losses = keras.losses.sparse_categorical_crossentropy(
        labels, logits, from_logits=True
    )
    is_right = ops.convert_to_numpy(logits).argmax(-1) == labels
    return float(ops.mean(losses)), float(is_right.mean())


@functools.cache
def overfitted(has_dropout: bool) -> tuple[keras.Model, list[dict[str, float]]]:
    """Train 784-256-256-10 with ReLU by Adam for `EPOCHS` epochs of 1,000 images.

    Returns:
        The model; loss and accuracy at inference, before training and after each epoch.
    """
    keras.utils.set_random_seed(SEED)
    images, labels = fashion_mnist("train", FEW)
    unseen = fashion_mnist("t10k", UNSEEN)
    layers: list[Any] = [keras.Input((784,))]
    for rate in (INPUT_RATE, HIDDEN_RATE):
        layers += [kerasnorm.KDropout(rate)] if has_dropout else []
        layers += [keras.layers.Dense(HIDDEN, activation="relu")]
    layers += [kerasnorm.KDropout(HIDDEN_RATE)] if has_dropout else []
    model = compiled([*layers, keras.layers.Dense(10)], keras.optimizers.Adam(1e-3))
    history = []

    def look(step: int) -> None:
        row: dict[str, float] = {"step": step}
        for name, data in (("training", (images, labels)), ("unseen", unseen)):
            loss, accuracy = judged(model, *data)
            row |= {f"{name} loss": loss, f"{name} accuracy": accuracy}
        history.append(row)

    model.fit(
        images,
        labels,
        batch_size=100,
        epochs=EPOCHS,
        callbacks=[AfterSteps(look, FEW // 100)],
        verbose=0,
    )
    return model, history
