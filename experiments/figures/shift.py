"""The network of Ioffe & Szegedy 2015, section 4.1, with batch normalization or not."""

import functools

import keras
import numpy as np
from keras import ops
from matplotlib.figure import Figure

import kerasnorm
from experiments.figures.drawing import BLUE, ORANGE, Drawn
from experiments.figures.runs import SEED, UNSEEN, AfterSteps, compiled, fashion_mnist

STEPS, BATCH, RATE, EVERY = 3000, 60, 0.5, 50
ARMS = {"without batch normalization": False, "with batch normalization": True}


@functools.cache
def trained(normalized: bool) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Train 784-100-100-100-10 with sigmoids by SGD.

    Returns:
        The steps that were looked at; the accuracies on unseen images; and the inputs
        of the last hidden layer's sigmoids for 1,000 images, (steps, images, units),
        computed as in training, with the statistics of these images.
    """
    keras.utils.set_random_seed(SEED)
    images, labels = fashion_mnist("train", 20000)
    unseen, unseen_labels = fashion_mnist("t10k", UNSEEN)
    hidden: list[keras.layers.Layer] = []
    initializer = keras.initializers.RandomNormal(stddev=0.1, seed=SEED)
    for _ in range(3):
        hidden.append(
            keras.layers.Dense(
                100, use_bias=not normalized, kernel_initializer=initializer
            )
        )
        if normalized:
            hidden.append(kerasnorm.KBatchNorm(momentum=0.9))
        hidden.append(keras.layers.Activation("sigmoid"))
    model = compiled(
        [keras.Input((784,)), *hidden, keras.layers.Dense(10)],
        keras.optimizers.SGD(RATE),
    )
    steps: list[int] = []
    accuracies: list[float] = []
    seen: list[np.ndarray] = []

    def look(step: int) -> None:
        steps.append(step)
        predicted = ops.convert_to_numpy(model(unseen, training=False)).argmax(-1)
        accuracies.append(float((predicted == unseen_labels).mean()))
        seen.append(last_inputs(model, unseen[:1000]))

    epochs = STEPS * BATCH // len(images)
    model.fit(
        images,
        labels,
        batch_size=BATCH,
        epochs=epochs,
        callbacks=[AfterSteps(look, EVERY)],
        verbose=0,
    )
    return steps, np.array(accuracies), np.stack(seen)


def last_inputs(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """Return the last sigmoid's inputs, normalized by the statistics of `x`."""
    z = x
    for layer in model.layers[:-2]:
        if isinstance(layer, kerasnorm.KBatchNorm):
            gamma, beta = (ops.convert_to_numpy(v) for v in (layer.gamma, layer.beta))
            wide = z.astype("float64")
            z = (wide - wide.mean(0)) / np.sqrt(wide.var(0) + layer.epsilon)
            z = (gamma * z + beta).astype("float32")
        else:
            z = ops.convert_to_numpy(layer(z))
    return z


def speed() -> Drawn:
    """Draw the accuracy by step."""
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    numbers = {}
    for (arm, normalized), colour in zip(ARMS.items(), (BLUE, ORANGE), strict=True):
        steps, accuracies, _ = trained(normalized)
        axes.plot(steps, accuracies, c=colour, label=arm)
        numbers[f"{arm}, at the end"] = float(accuracies[-1])
        reached = np.flatnonzero(accuracies >= 0.8)
        if len(reached):
            numbers[f"{arm}, steps to 80 %"] = float(steps[reached[0]])
    axes.set(xlabel="training step", ylabel="unseen images right", ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure, numbers


def percentiles() -> Drawn:
    """Draw the percentiles 15, 50 and 85 of the input of a typical sigmoid.

    The typical unit is the one with the median drift. A unit's drift is the standard
    deviation of its median over training, divided by the mean distance between the
    outer percentiles.
    """
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    numbers = {}
    for axes, (arm, normalized), colour in zip(
        panels, ARMS.items(), (BLUE, ORANGE), strict=True
    ):
        steps, _, seen = trained(normalized)
        low, median, high = np.percentile(seen, (15, 50, 85), axis=1)
        drift = median.std(0) / (high - low).mean(0)
        unit = int(np.argsort(drift)[len(drift) // 2])
        axes.plot(steps, median[:, unit], c=colour)
        for outer in (low, high):
            axes.plot(steps, outer[:, unit], c=colour, ls="--", lw=0.8)
        axes.fill_between(
            steps, low[:, unit], high[:, unit], color=colour, alpha=0.15, lw=0
        )
        axes.set(xlabel="training step", title=arm)
        axes.title.set_fontsize(10)
        axes.grid(alpha=0.3)
        numbers[f"{arm}, median drift of the units"] = float(np.median(drift))
    panels[0].set_ylabel("input of a typical sigmoid")
    return figure, numbers
