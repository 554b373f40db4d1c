"""Pictures of batch normalization: distributions and statistics over training."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from service.page.layers import Normalization

_BINS = 80
_COLUMNS = {
    "input": "inputs",
    "output": "outputs",
    "moving_mean": "moving mean of the features",
    "moving_variance": "moving variance of the features",
}


def distributions(layers: Sequence[Normalization]) -> Figure:
    """Draw histograms of the inputs and outputs of each layer."""
    figure = Figure(figsize=(11, 0.6 + 1.7 * len(layers)), layout="constrained")
    grid = figure.subplots(len(layers), 2, squeeze=False)
    for layer, (before, after) in zip(layers, grid, strict=True):
        _histogram(before, layer.before, "tab:blue")
        _histogram(after, layer.after, "tab:orange")
        before.set_ylabel(layer.name, fontsize=8)
    grid[0][0].set_title("before: what the layer is given", fontsize=10)
    grid[0][1].set_title("after: what it gives on", fontsize=10)
    return figure


def statistics(path: Path) -> Figure | None:
    """Draw the CSV file of a ShiftMonitor; return None if there is no file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    layers: dict[str, list[Mapping[str, str]]] = {}
    for row in csv.DictReader(text.splitlines()):
        layers.setdefault(row["layer"], []).append(row)
    figure = Figure(figsize=(11, 0.6 + 1.9 * len(layers)), layout="constrained")
    grid = figure.subplots(len(layers), len(_COLUMNS), squeeze=False, sharex=True)
    for (name, rows), panels in zip(layers.items(), grid, strict=True):
        for axes, column in zip(panels, _COLUMNS, strict=True):
            _percentiles(axes, rows, column)
        shift, ratio = (float(rows[-1][n]) for n in ("mean_shift", "variance_ratio"))
        panels[0].set_ylabel(
            f"{name}\nat the end: mean shift\n{shift:.2g}, variance ratio {ratio:.2g}",
            fontsize=7,
        )
    for axes, title in zip(grid[0], _COLUMNS.values(), strict=True):
        axes.set_title(title, fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel("training step", fontsize=8)
    return figure


def _histogram(axes: Axes, values: np.ndarray, color: str) -> None:
    low, high = np.percentile(values, [0.1, 99.9])
    axes.hist(values, bins=_BINS, range=(low, high), density=True, color=color)
    axes.set_yticks([])
    axes.tick_params(labelsize=7)
    words = f"mean {values.mean():.2f}\nstandard deviation {values.std():.2f}"
    axes.text(
        *(0.98, 0.94, words), transform=axes.transAxes, ha="right", va="top", fontsize=7
    )


def _percentiles(axes: Axes, rows: Sequence[Mapping[str, str]], column: str) -> None:
    """Draw the median, and a band from the 15th to the 85th percentile."""
    steps = [int(row["step"]) for row in rows]
    low, median, high = (
        [float(row[f"{column}_{percent}"]) for row in rows] for percent in (15, 50, 85)
    )
    color = "tab:blue" if column in ("input", "output") else "tab:green"
    axes.fill_between(steps, low, high, color=color, alpha=0.25, lw=0)
    axes.plot(steps, median, color=color, marker="." if len(steps) == 1 else None)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
