"""Draw what a run has reached."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from training.report.measures import Calibration
from training.report.names import drawable, explained

_DPI = 150
_MOST_LABELS_WITH_COUNTS = 20
_MISTAKE_COLUMNS, _MISTAKE_ROWS = 6, 4
_CERTAINTY_BINS, _CERTAINTY_IMAGES = 10, 8


def draw_curves(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw loss and accuracy by epoch."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    epochs = [row["epoch"] for row in history]
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(epochs, [r[name] for r in history], "o-", label="training")
        axes.plot(epochs, [r[f"val_{name}"] for r in history], "s-", label="validation")
        axes.set(xlabel="epoch", ylabel=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle("Training values are averages over the epoch, with dropout")
    figure.savefig(path, dpi=_DPI)


def draw_confusion(counts: np.ndarray, labels: Sequence[str], path: Path) -> None:
    """Draw a confusion matrix; the colour is the share in the row."""
    size = len(labels)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    inches = min(3 + 0.6 * size, 16)
    figure = Figure(figsize=(inches + 0.8, inches), layout="constrained")
    names = drawable(labels)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    font_size = 9 if size <= 40 else 5
    axes.set_xticks(range(size), names, rotation=90, fontsize=font_size)
    axes.set_yticks(range(size), names, fontsize=font_size)
    axes.set(xlabel="predicted class", ylabel="true class")
    if size <= _MOST_LABELS_WITH_COUNTS:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(
                    column,
                    row,
                    f"{count}",
                    ha="center",
                    va="center",
                    color=colour,
                    fontsize=font_size,
                )
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    title = f"Test images: {np.trace(counts):,} of {counts.sum():,} right"
    figure.suptitle(explained(title, names))
    figure.savefig(path, dpi=_DPI)


def draw_reliability(calibration: Calibration, path: Path) -> None:
    """Draw accuracy against confidence, and how many images have which confidence."""
    figure = Figure(figsize=(5, 5.5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    bins = len(calibration.images)
    middles, width = (np.arange(bins) + 0.5) / bins, 0.9 / bins
    seen = calibration.images > 0
    top.plot([0, 1], [0, 1], "--", color="black", label="as confident as right")
    top.bar(
        middles[seen], calibration.accuracy[seen], width, color="tab:blue", alpha=0.6
    )
    top.plot(
        calibration.confidence[seen],
        calibration.accuracy[seen],
        "o",
        color="tab:blue",
        label="test images",
    )
    top.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    top.legend(loc="upper left")
    top.grid(alpha=0.3)
    bottom.bar(middles, calibration.images, width, color="tab:gray")
    bottom.set(xlabel="probability of the predicted class", ylabel="images")
    figure.suptitle(f"Expected calibration error: {calibration.error:.2%}")
    figure.savefig(path, dpi=_DPI)


def worst_mistakes(true: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the indices of the most confident wrong predictions, worst first."""
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != true)
    order = np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")
    return wrong[order][: _MISTAKE_COLUMNS * _MISTAKE_ROWS]


def draw_mistakes(
    images: Sequence[np.ndarray],
    true: np.ndarray,
    probabilities: np.ndarray,
    labels: Sequence[str],
    path: Path,
) -> None:
    """Draw the images of `worst_mistakes` with their true and predicted labels."""
    names = drawable(labels)
    figure = Figure(
        figsize=(2 * _MISTAKE_COLUMNS, 2.5 * _MISTAKE_ROWS), layout="constrained"
    )
    grid = figure.subplots(_MISTAKE_ROWS, _MISTAKE_COLUMNS).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, image, label, p in zip(grid, images, true, probabilities, strict=False):
        axes.imshow(image.squeeze(), cmap="gray")
        predicted = p.argmax()
        axes.set_title(
            f"true: {names[label]}\npredicted: {names[predicted]}, {p[predicted]:.0%}",
            fontsize=8,
        )
    title = "The most confident mistakes on the test images"
    figure.suptitle(explained(title, names))
    figure.savefig(path, dpi=_DPI)


def most_and_least_certain(entropy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the images at both ends, the outermost first."""
    order = np.argsort(entropy, kind="stable")
    return order[:_CERTAINTY_IMAGES], order[::-1][:_CERTAINTY_IMAGES]


def draw_certainty(
    images: Mapping[int, np.ndarray],
    true: np.ndarray,
    probabilities: np.ndarray,
    entropy: np.ndarray,
    labels: Sequence[str],
    path: Path,
) -> None:
    """Draw the error rate by certainty, and the least and the most certain images.

    Args:
        images: Those that `most_and_least_certain` names, by their index.
        true: The class of each test image.
        probabilities: Of each class, averaged over dropout masks.
        entropy: Of these probabilities. The lower, the more certain.
        labels: The names of the classes.
        path: Where to.
    """
    names = drawable(labels)
    order = np.argsort(entropy, kind="stable")
    wrong = probabilities.argmax(axis=1) != true
    rates = [
        part.mean() if part.size else 0.0
        for part in np.array_split(wrong[order], _CERTAINTY_BINS)
    ]
    figure = Figure(figsize=(1.7 * _CERTAINTY_IMAGES, 8), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 1.5], squeeze=False).flat
    axes = top.subplots()
    axes.bar(range(_CERTAINTY_BINS), 100 * np.array(rates), color="tab:blue")
    ticks = [f"{i + 1}" for i in range(_CERTAINTY_BINS)]
    axes.set_xticks(range(_CERTAINTY_BINS), ticks)
    axes.set(
        xlabel="tenth of the test images, from the most to the least certain",
        ylabel="error rate [%]",
        title=explained(
            "Error rate by the entropy of the prediction over dropout masks", names
        ),
    )
    axes.grid(axis="y", alpha=0.3)
    most, least = most_and_least_certain(entropy)
    for (title, chosen), grid in zip(
        (("least certain", least), ("most certain", most)),
        bottom.subfigures(2, 1, squeeze=False).flat,
        strict=True,
    ):
        grid.suptitle(title)
        for axes, i in zip(grid.subplots(1, _CERTAINTY_IMAGES), chosen, strict=False):
            axes.axis("off")
            axes.imshow(images[int(i)].squeeze(), cmap="gray")
            predicted = probabilities[i].argmax()
            axes.set_title(
                f"true: {names[true[i]]}\n{names[predicted]}, "
                f"{probabilities[i, predicted]:.0%}\n{entropy[i]:.2f} nats",
                fontsize=8,
            )
    figure.savefig(path, dpi=_DPI)
