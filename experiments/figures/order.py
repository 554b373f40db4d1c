"""Dropout and batch normalization together: which comes first."""

import functools
from typing import Any

import keras
import numpy as np
from keras import ops
from matplotlib.figure import Figure

import kerasnorm
from experiments.figures.drawing import BLUE, GREY, ORANGE, Drawn
from experiments.figures.runs import SEED, UNSEEN, compiled, fashion_mnist, judged

ARMS = {
    "dropout before a batch normalization": True,
    "dropout after the last one": False,
}
RATE, EPOCHS = 0.5, 10


@functools.cache
def trained(dropout_before: bool) -> keras.Model:
    """Train 784-256-256-10 with ReLU, batch normalization and dropout.

    Dropout follows both hidden layers with `dropout_before`, else the second one only.
    """
    keras.utils.set_random_seed(SEED)
    images, labels = fashion_mnist("train", 10000)
    layers: list[Any] = [keras.Input((784,))]
    for name in ("first", "second"):
        layers += [
            keras.layers.Dense(256, use_bias=False),
            kerasnorm.KBatchNorm(momentum=0.9, name=name),
            keras.layers.ReLU(),
        ]
        if name == "second" or dropout_before:
            layers.append(kerasnorm.KDropout(RATE))
    model = compiled([*layers, keras.layers.Dense(10)], keras.optimizers.Adam(1e-3))
    model.fit(images, labels, batch_size=100, epochs=EPOCHS, verbose=0)
    return model


def variance_ratios(model: keras.Model) -> np.ndarray:
    """Return the variance of the second layer's inputs over its moving variance."""
    images, _ = fashion_mnist("train", 10000)
    norm = model.get_layer("second")
    inputs = keras.Model(model.inputs, norm.input).predict(
        images, batch_size=1000, verbose=0
    )
    return inputs.var(0) / ops.convert_to_numpy(norm.moving_variance)


def order() -> Drawn:
    """Draw how far inference is from what training has learned, and recalibration."""
    images, _ = fashion_mnist("train", 10000)
    unseen = fashion_mnist("t10k", UNSEEN)
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    numbers: dict[str, float] = {}
    bins = np.linspace(0, 1.5, 46)
    for axes, (arm, before) in zip(panels, ARMS.items(), strict=True):
        model = trained(before)
        for when, colour in (("as trained", BLUE), ("recalibrated", ORANGE)):
            if when == "recalibrated":
                kerasnorm.recalibrate(model, images, verbose=0)
            ratios = variance_ratios(model)
            loss, accuracy = judged(model, *unseen)
            numbers |= {
                f"{arm}, {when}, median ratio": float(np.median(ratios)),
                f"{arm}, {when}, loss": loss,
                f"{arm}, {when}, accuracy": accuracy,
            }
            label = f"{when}: loss {loss:.3f}, {accuracy:.1%} right"
            axes.hist(ratios, bins=bins, color=colour, alpha=0.6, label=label)
        axes.axvline(1, c=GREY, ls="--", lw=1)
        axes.set_title(arm, fontsize=10)
        axes.set_xlabel("variance at inference / moving variance")
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("features of the second layer")
    return figure, numbers
