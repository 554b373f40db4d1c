"""Overfitting, and what dropout does about it."""

import itertools
from typing import Any

import keras
import numpy as np
from keras import ops
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import kerasnorm
from experiments.figures.drawing import BLUE, GREY, ORANGE, Drawn, network, signed
from experiments.figures.runs import (
    HIDDEN,
    HIDDEN_RATE,
    INPUT_RATE,
    SEED,
    UNSEEN,
    compiled,
    fashion_mnist,
    overfitted,
)
from kerasnorm import functional

EPOCHS = 10  # of the small network
ARMS = {"without dropout": False, "with dropout": True}


def masks(shape: tuple[int, ...], rate: float, number: int) -> np.ndarray:
    """Draw the library's masks as factors of inverted dropout: 0 or 1 / p."""
    seed = ops.convert_to_tensor([SEED, number])
    keep = ops.convert_to_numpy(functional.keep_mask(shape, rate, seed))
    return keep / functional.keep_fraction(rate)


def logits(model: keras.Model, x: np.ndarray, factors: list[np.ndarray]) -> np.ndarray:
    """Return the logits of a network whose layers' inputs are multiplied by factors."""
    weights = model.get_weights()
    for kernel, bias, factor in zip(weights[::2], weights[1::2], factors, strict=True):
        z = (x * factor) @ kernel + bias
        x = np.maximum(z, 0)
    return z


def overfitting() -> Drawn:
    """Draw the loss on training and on unseen images, by epoch."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    numbers: dict[str, float] = {}
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (arm, has_dropout) in zip(panels, ARMS.items(), strict=True):
        _, history = overfitted(has_dropout)
        epochs = [row["step"] // 10 for row in history]
        for name, colour in (("training", BLUE), ("unseen", ORANGE)):
            losses = [row[f"{name} loss"] for row in history]
            axes.plot(epochs, losses, c=colour, label=f"{name} images")
            numbers |= {
                f"{arm}, {name} {key}": history[-1][f"{name} {key}"]
                for key in ("loss", "accuracy")
            }
        accuracy = history[-1]["unseen accuracy"]
        axes.set(xlabel="epoch", title=f"{arm}: {accuracy:.1%} of unseen images right")
        axes.grid(alpha=0.3)
    panels[0].set(ylabel="loss, at inference", ylim=(0, None))
    panels[0].legend()
    return figure, numbers


def co_adaptation() -> Drawn:
    """Draw both networks' accuracy while more and more hidden units are missing."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    x, labels = fashion_mnist("t10k", UNSEEN)
    rates = np.arange(0, 0.91, 0.1)
    numbers: dict[str, float] = {}
    for (arm, has_dropout), colour in zip(ARMS.items(), (BLUE, ORANGE), strict=True):
        model, _ = overfitted(has_dropout)
        means, low, high = [], [], []
        for rate in rates:
            accuracies = [
                (
                    logits(
                        model,
                        x,
                        [
                            np.ones(784),
                            masks((HIDDEN,), rate, 2 * number),
                            masks((HIDDEN,), rate, 2 * number + 1),
                        ],
                    ).argmax(-1)
                    == labels
                ).mean()
                for number in range(10)
            ]
            means.append(np.mean(accuracies))
            low.append(np.min(accuracies))
            high.append(np.max(accuracies))
        axes.plot(rates, means, "o-", c=colour, ms=4, label=f"trained {arm}")
        axes.fill_between(rates, low, high, color=colour, alpha=0.2, lw=0)
        numbers |= {
            f"{arm}, {rate:.1f} missing": float(mean)
            for rate, mean in zip(rates, means, strict=True)
        }
    axes.set(
        xlabel="fraction of the hidden units that is missing",
        ylabel="unseen images right",
        ylim=(0, 1),
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    return figure, numbers


def thinned() -> Drawn:
    """Draw a small trained network, whole and thinned by two masks."""
    keras.utils.set_random_seed(SEED)
    images, labels = fashion_mnist("train", 10000)
    units = (16, 10, 10, 10)
    small = images.reshape(-1, 4, 7, 4, 7).mean((2, 4)).reshape(-1, 16)
    model = compiled(
        [
            keras.Input((16,)),
            kerasnorm.KDropout(INPUT_RATE),
            keras.layers.Dense(units[1], activation="relu"),
            kerasnorm.KDropout(HIDDEN_RATE),
            keras.layers.Dense(units[2], activation="relu"),
            kerasnorm.KDropout(HIDDEN_RATE),
            keras.layers.Dense(units[3]),
        ],
        keras.optimizers.Adam(5e-3),
    )
    model.fit(small, labels, batch_size=100, epochs=EPOCHS, verbose=0)
    kernels = model.get_weights()[::2]
    whole = [np.ones(n, bool) for n in units]
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    panels = figure.subplots(1, 3)
    names = ("inputs", "hidden 1", "hidden 2", "classes")
    numbers = {}
    for axes, number in zip(panels, (None, 1, 2), strict=True):
        kept = list(whole)
        if number is not None:
            for k, rate in enumerate((INPUT_RATE, HIDDEN_RATE, HIDDEN_RATE)):
                kept[k] = masks((units[k],), rate, 3 * number + k) > 0
        counts = [int(k.sum()) for k in kept]
        captions = [
            f"{name}\n{n}" if n == of else f"{name}\n{n} of {of}"
            for name, n, of in zip(names, counts, units, strict=True)
        ]
        network(axes, kernels, kept, captions)
        title = (
            "the standard network" if number is None else f"thinned by mask {number}"
        )
        axes.set_title(title, fontsize=10)
        lines = sum(a * b for a, b in itertools.pairwise(counts))
        numbers[f"{title}, weights"] = float(lines)
    return figure, numbers


def unit() -> Drawn:
    """Draw a unit of the first hidden layer over masks of its inputs, and at inference.

    The network was trained in the inverted form. Its weights divided by p are those of
    the paper's form, which gives the same outputs.
    """
    model, _ = overfitted(True)
    kernel, bias = model.get_weights()[:2]
    p = functional.keep_fraction(INPUT_RATE)
    w = kernel / p
    x, _ = fashion_mnist("t10k", 1)
    chosen = int((x @ kernel + bias)[0].argmax())
    keep = masks((5000, 784), INPUT_RATE, 0) * p
    z = (keep * x[0]) @ w[:, chosen] + bias[chosen]
    at_inference = float(x[0] @ (p * w[:, chosen]) + bias[chosen])
    unscaled = float(x[0] @ w[:, chosen] + bias[chosen])

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    training, inference, histogram = figure.subplots(1, 3, width_ratios=(1, 1, 1.7))
    pixel = int(np.abs(x[0] * kernel[:, chosen]).argmax())
    strongest = np.argsort(-np.abs(kernel[pixel]))[:3]
    _draw_unit(
        training, w[pixel, strongest], "w", f"training:\nthere with p = {p:.1f}", "--"
    )
    _draw_unit(
        inference, p * w[pixel, strongest], "pw", "inference:\nalways there", "-"
    )
    histogram.hist(z, bins=50, color=BLUE, alpha=0.5, label="training: 5,000 masks")
    histogram.axvline(z.mean(), c=BLUE, label=f"their mean, {z.mean():.2f}")
    histogram.axvline(
        at_inference, c=ORANGE, ls="--", label=f"inference with pw, {at_inference:.2f}"
    )
    histogram.axvline(
        unscaled, c=GREY, ls=":", lw=2, label=f"with w, unscaled, {unscaled:.2f}"
    )
    histogram.set(xlabel="z of a unit of the next layer", yticks=[])
    histogram.set_ylim(0, histogram.get_ylim()[1] * 1.55)
    histogram.legend(fontsize=8, loc="upper left")
    numbers = {
        "p": p,
        "mean over masks": float(z.mean()),
        "standard error": float(z.std() / np.sqrt(len(z))),
        "standard deviation over masks": float(z.std()),
        "inference": at_inference,
        "unscaled": unscaled,
    }
    return figure, numbers


def _draw_unit(
    axes: Axes, weights: np.ndarray, name: str, title: str, style: str
) -> None:
    circle: dict[str, Any] = {"c": "white", "edgecolors": "0.2", "zorder": 2}
    axes.scatter([0], [0], s=900, linestyle=style, **circle)
    for y, weight in zip((1, 0, -1), weights, strict=True):
        colour = BLUE if weight > 0 else ORANGE
        axes.plot([0, 2], [0, y], c=colour, lw=1.5, ls=style, zorder=1)
        axes.scatter([2], [y], s=350, **circle)
        axes.text(
            *(1.2, 0.6 * y, f"{name} = {signed(weight, 3)}"),
            ha="center",
            va="center",
            fontsize=8,
            bbox={"color": "white", "pad": 1.5},
        )
    axes.set_title(title, fontsize=10)
    axes.set(xlim=(-0.5, 2.5), ylim=(-1.4, 1.4))
    axes.axis("off")
