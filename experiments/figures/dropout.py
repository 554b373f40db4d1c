"""Overfitting, and what dropout does about it."""

import functools
import itertools

import keras
import numpy as np
from keras import ops
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import kerasnorm
from experiments.figures.drawing import BLUE, GREEN, GREY, ORANGE, network, signed
from experiments.figures.runs import (
    CLASSES,
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

Drawn = tuple[Figure, dict[str, float]]
ARMS = {"without dropout": False, "with dropout": True}


def masks(shape: tuple[int, ...], rate: float, number: int) -> np.ndarray:
    """The library's masks, as factors of inverted dropout: 0 or 1 / p."""
    seed = ops.convert_to_tensor([SEED, number])
    keep = ops.convert_to_numpy(functional.keep_mask(shape, rate, seed))
    return keep / functional.keep_fraction(rate)


def logits(model: keras.Model, x: np.ndarray, factors: list[np.ndarray]) -> np.ndarray:
    """The network's logits with the inputs of its layers multiplied by factors."""
    weights = model.get_weights()
    for kernel, bias, factor in zip(weights[::2], weights[1::2], factors, strict=True):
        z = (x * factor) @ kernel + bias
        x = np.maximum(z, 0)
    return z


def thinned_probabilities(
    x: np.ndarray, number: int, each_its_own: bool = False
) -> np.ndarray:
    """What a thinned network, or one for each image, says of images."""
    model, _ = overfitted(True)
    rows = len(x) if each_its_own else 1
    factors = [
        masks((rows, units), rate, 3 * number + k)
        for k, (units, rate) in enumerate(
            ((784, INPUT_RATE), (HIDDEN, HIDDEN_RATE), (HIDDEN, HIDDEN_RATE))
        )
    ]
    z = logits(model, x, factors)
    return ops.convert_to_numpy(ops.softmax(z))


@functools.cache
def probabilities_of_many() -> np.ndarray:
    """Of 100 thinned networks on 2,000 unseen images."""
    x, _ = fashion_mnist("t10k", 2000)
    return np.stack([thinned_probabilities(x, number) for number in range(100)])


def overfitting() -> Drawn:
    """Loss on the training images and on unseen ones, by epoch."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    numbers = {}
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
    """Accuracy of both networks while more and more hidden units are missing."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    x, labels = fashion_mnist("t10k", 2000)
    rates = np.arange(0, 0.91, 0.1)
    numbers = {}
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
    """A small trained network, whole and thinned by two masks."""
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
    model.fit(small, labels, batch_size=100, epochs=10, verbose=0)
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
    """A unit of the first hidden layer over masks of its inputs, and at inference.

    The network was trained in the inverted form; divided by p its weights are those
    of the paper's form, which gives the same outputs.
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
    axes.scatter(
        [0], [0], s=900, c="white", edgecolors="0.2", linestyle=style, zorder=2
    )
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


def ensemble() -> Drawn:
    """Errors of single thinned networks, of averages of them and of weight scaling."""
    model, _ = overfitted(True)
    x, labels = fashion_mnist("t10k", 2000)
    probabilities = probabilities_of_many()
    scaled = ops.convert_to_numpy(model(x, training=False)).argmax(-1)
    error_scaled = float((scaled != labels).mean())
    singles = (probabilities.argmax(-1) != labels).mean(-1)

    sizes = [1, 2, 3, 5, 7, 10, 14, 20, 30, 50]
    orders = [np.random.default_rng(k).permutation(100) for k in range(20)]
    errors = np.array(
        [
            [
                (probabilities[order[:k]].mean(0).argmax(-1) != labels).mean()
                for order in orders
            ]
            for k in sizes
        ]
    )
    figure = Figure(figsize=(6.5, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(
        np.ones(100) * 0.93,
        100 * singles,
        ".",
        c=GREY,
        ms=4,
        label="single thinned networks",
    )
    mean, sd = 100 * errors.mean(1), 100 * errors.std(1)
    axes.plot(sizes, mean, "o-", c=BLUE, ms=4, label="average of k of them")
    axes.fill_between(sizes, mean - sd, mean + sd, color=BLUE, alpha=0.2, lw=0)
    axes.axhline(
        100 * error_scaled,
        c=ORANGE,
        ls="--",
        label="the whole network, as at inference",
    )
    axes.set(xscale="log", xlabel="k", ylabel="error on unseen images, %")
    axes.set_xticks(sizes, [str(k) for k in sizes])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    numbers = {
        "single, mean": float(singles.mean()),
        "single, best": float(singles.min()),
        "single, worst": float(singles.max()),
        "average of 50": float(errors[-1].mean()),
        "whole network": error_scaled,
    }
    return figure, numbers


def monte_carlo() -> Drawn:
    """What 50 masks say of four images; how often the certain ones are right."""
    model, _ = overfitted(True)
    x, labels = fashion_mnist("t10k", UNSEEN)
    prediction = kerasnorm.monte_carlo(
        model, x, samples=50, seed=SEED, batch_size=1000, from_logits=True
    )
    information = prediction.mutual_information
    order = np.argsort(information)
    chosen = [int(order[k]) for k in (len(order) // 10, len(order) // 2, -60, -1)]
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    grid = figure.add_gridspec(
        2, 5, height_ratios=(1, 1.7), width_ratios=(1,) * 4 + (1.5,)
    )
    each = np.stack(
        [thinned_probabilities(x[chosen], n, each_its_own=True) for n in range(50)]
    )
    jitter = np.random.default_rng(SEED).uniform(-0.25, 0.25, 50)
    for k, image in enumerate(chosen):
        axes = figure.add_subplot(grid[0, k])
        axes.imshow(x[image].reshape(28, 28), cmap="gray_r")
        axes.set_title(f"{CLASSES[labels[image]]}", fontsize=9)
        axes.axis("off")
        axes = figure.add_subplot(grid[1, k])
        for number in range(10):
            colour = ORANGE if number == labels[image] else BLUE
            axes.plot(each[:, k, number], number + jitter, ".", c=colour, ms=3)
        axes.set_title(f"{information[image]:.3f} nats", fontsize=9)
        axes.set_yticks(range(10), CLASSES if k == 0 else [""] * 10, fontsize=8)
        axes.set(xlim=(-0.05, 1.05), xlabel="probability")
        axes.invert_yaxis()
        axes.grid(alpha=0.3)
    axes = figure.add_subplot(grid[:, 4])
    right = prediction.mean.argmax(-1) == labels
    groups = np.array_split(order, 10)
    shares = [float(right[group].mean()) for group in groups]
    axes.bar(range(10), shares, color=GREEN)
    axes.set(
        xlabel="tenths, by mutual information",
        title="images that are right",
        ylim=(0, 1),
    )
    axes.title.set_fontsize(9)
    axes.set_xticks([0, 9], ["least", "most"])
    axes.grid(axis="y", alpha=0.3)
    numbers = {
        "accuracy": float(right.mean()),
        "right in the most certain tenth": shares[0],
        "right in the least certain tenth": shares[-1],
    }
    return figure, numbers
