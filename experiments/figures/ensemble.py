"""Dropout as an ensemble, and Monte Carlo."""

import functools

import numpy as np
from keras import ops
from matplotlib.figure import Figure

import kerasnorm
from experiments.figures.drawing import BLUE, GREEN, GREY, ORANGE, Drawn
from experiments.figures.dropout import logits, masks
from experiments.figures.runs import (
    CLASSES,
    HIDDEN,
    HIDDEN_RATE,
    INPUT_RATE,
    SEED,
    UNSEEN,
    fashion_mnist,
    overfitted,
)


def thinned_probabilities(
    x: np.ndarray, number: int, each_its_own: bool = False
) -> np.ndarray:
    """Return the probabilities of one thinned network, or of one for each image."""
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
    """Return the probabilities of 100 thinned networks on 2,000 unseen images."""
    x, _ = fashion_mnist("t10k", UNSEEN)
    return np.stack([thinned_probabilities(x, number) for number in range(100)])


def groups_of(k: int) -> list[np.ndarray]:
    """Return the groups of k that 20 shuffled rows of the 100 networks fall into."""
    orders = [np.random.default_rng(number).permutation(100) for number in range(20)]
    return [order[i : i + k] for order in orders for i in range(0, 101 - k, k)]


def ensemble() -> Drawn:
    """Draw the errors of thinned networks, of their averages and of weight scaling."""
    model, _ = overfitted(True)
    x, labels = fashion_mnist("t10k", UNSEEN)
    probabilities = probabilities_of_many()
    scaled = ops.convert_to_numpy(model(x, training=False)).argmax(-1)
    error_scaled = float((scaled != labels).mean())
    singles = (probabilities.argmax(-1) != labels).mean(-1)

    def error_of(group: np.ndarray) -> float:
        mean = probabilities[group].mean(0, dtype="float64")
        return float((mean.argmax(-1) != labels).mean())

    sizes = [1, 2, 3, 5, 7, 10, 14, 20, 30, 50]
    errors = [[error_of(group) for group in groups_of(k)] for k in sizes]
    figure = Figure(figsize=(6.5, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(
        np.full(100, 0.93),
        100 * singles,
        ".",
        c=GREY,
        ms=4,
        label="single thinned networks",
    )
    mean = 100 * np.array([np.mean(found) for found in errors])
    sd = 100 * np.array([np.std(found) for found in errors])
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
        "average of 50": float(np.mean(errors[-1])),
        "whole network": error_scaled,
    }
    return figure, numbers


def monte_carlo() -> Drawn:
    """Draw what 50 masks say of four images, and how often sure answers are right."""
    model, _ = overfitted(True)
    x, labels = fashion_mnist("t10k", UNSEEN)
    prediction = kerasnorm.monte_carlo(
        model, x, samples=50, seed=SEED, batch_size=1000, from_logits=True
    )
    information = prediction.mutual_information
    assert information is not None  # from logits there always is one
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
