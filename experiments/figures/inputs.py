"""What normalizing the inputs changes."""

import numpy as np
from matplotlib.figure import Figure

from experiments.figures.drawing import BLUE, ORANGE, Drawn
from experiments.figures.runs import fashion_mnist

STEPS = 200
RATES = [10.0**k for k in range(-13, 4)]
DRESS, COAT = 3, 4


def features() -> tuple[np.ndarray, np.ndarray]:
    """Return two features of each image of a dress or a coat, and whether it is a coat.

    The features are the garment's height over its width, and the sum of the pixels.
    """
    images, labels = fashion_mnist("train", 5000)
    chosen = np.isin(labels, (DRESS, COAT))
    pixels = (images[chosen].reshape(-1, 28, 28) * 255).round()
    is_cloth = pixels > 25
    height = is_cloth.any(2).sum(1)
    width = is_cloth.any(1).sum(1)
    x = np.stack([height / width, pixels.sum((1, 2))], 1)
    return x, (labels[chosen] == COAT).astype(float)


def losses(x: np.ndarray, y: np.ndarray, rate: float) -> np.ndarray:
    """Return the losses of logistic regression before each step."""
    x = np.concatenate([x, np.ones((len(x), 1))], 1)
    w = np.zeros(3)
    found = []
    for _ in range(STEPS):
        z = x @ w
        found.append(np.mean(np.logaddexp(0, z) - y * z))
        # No overflow, since exp takes negative numbers only.
        probability = np.where(z > 0, 1, np.exp(-abs(z))) / (1 + np.exp(-abs(z)))
        w -= rate * x.T @ (probability - y) / len(y)
    return np.array(found)


def input_normalization() -> Drawn:
    """Draw two features before and after, and gradient descent on both."""
    x, y = features()
    normalized = (x - x.mean(0)) / x.std(0)
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    before, after, descent = figure.subplots(1, 3, width_ratios=(1, 1, 1.2))
    before.plot(*x.T, ".", c=BLUE, ms=2)
    before.axhline(0, c="0.6", lw=0.8)
    before.axvline(0, c="0.6", lw=0.8)
    before.set(xlabel="height / width", ylabel="sum of the pixels", title="before")
    after.plot(*normalized.T, ".", c=ORANGE, ms=2)
    after.axhline(0, c="0.6", lw=0.8)
    after.axvline(0, c="0.6", lw=0.8)
    after.set(
        xlabel="height / width, normalized",
        ylabel="sum of the pixels, normalized",
        title="after",
    )
    numbers = {
        "ratio, mean": float(x[:, 0].mean()),
        "ratio, standard deviation": float(x[:, 0].std()),
        "sum, mean": float(x[:, 1].mean()),
        "sum, standard deviation": float(x[:, 1].std()),
    }
    for name, inputs, colour in (("raw", x, BLUE), ("normalized", normalized, ORANGE)):
        runs = {rate: losses(inputs, y, rate) for rate in RATES}
        best = min(runs, key=lambda rate: runs[rate][-1])
        descent.plot(runs[best], c=colour, label=f"{name}, rate {best:g}")
        numbers[f"{name}, best rate"] = best
        numbers[f"{name}, loss after {STEPS} steps"] = float(runs[best][-1])
    descent.set(xlabel="step", ylabel="loss", title="gradient descent")
    descent.legend(fontsize=8)
    for axes in (before, after, descent):
        axes.grid(alpha=0.3)
        axes.title.set_fontsize(10)
    return figure, numbers
