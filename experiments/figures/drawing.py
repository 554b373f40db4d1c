"""The look of the figures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

Drawn = tuple[Figure, dict[str, float]]  # a figure and the numbers it shows

DPI = 110
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#999999"


def signed(value: float, digits: int) -> str:
    """Return a number with a proper minus sign."""
    return f"{value:.{digits}f}".replace("-", "−")


def table(
    axes: Axes,
    values: np.ndarray,
    title: str,
    rows: Sequence[str],
    columns: Sequence[str] = (),
    limit: float = 4.0,
    digits: int = 2,
) -> None:
    """Draw numbers in cells: the further from 0, the redder or bluer."""
    axes.imshow(
        values, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", alpha=0.6
    )
    for (row, column), value in np.ndenumerate(values):
        axes.text(
            column, row, signed(value, digits), ha="center", va="center", fontsize=8
        )
    axes.set_title(title, fontsize=9)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_xticks(range(len(columns)), columns, fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def network(
    axes: Axes,
    weights: Sequence[np.ndarray],
    kept: Sequence[np.ndarray],
    captions: Sequence[str],
) -> None:
    """Draw units as circles and weights as lines. What is dropped has no lines."""
    heights = [1 - (np.arange(len(k)) + 0.5) / len(k) for k in kept]
    for x, matrix in enumerate(weights):
        left, right = heights[x : x + 2]
        scale = np.abs(matrix).max()
        ends = [
            (i, j) for i, j in np.ndindex(matrix.shape) if kept[x][i] and kept[x + 1][j]
        ]
        lines = LineCollection(
            [np.array([(x, left[i]), (x + 1, right[j])]) for i, j in ends],
            colors=[BLUE if matrix[end] > 0 else ORANGE for end in ends],
            linewidths=[2.0 * abs(matrix[end]) / scale for end in ends],
        )
        axes.add_collection(lines)
    for x, (column, mask) in enumerate(zip(heights, kept, strict=True)):
        circle: dict[str, Any] = {"s": 90, "zorder": 2, "linewidths": 1}
        present, absent = column[mask], column[~mask]
        axes.scatter([x] * len(present), present, c="white", edgecolors="0.2", **circle)
        axes.scatter([x] * len(absent), absent, c="0.95", edgecolors="0.75", **circle)
        axes.scatter([x] * len(absent), absent, s=45, c="0.6", marker="x", zorder=3)
        axes.text(x, -0.03, captions[x], ha="center", va="top", fontsize=8)
    axes.set(xlim=(-0.4, len(kept) - 0.6), ylim=(-0.16, 1.0))
    axes.axis("off")
