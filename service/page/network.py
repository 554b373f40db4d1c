"""A network and a thinned network, as in figure 1 of Srivastava et al. (2014)."""

from collections.abc import Sequence
from itertools import pairwise, product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from service.page.layers import Units

_MOST_SHOWN = 11


def network(columns: Sequence[Units]) -> Figure:
    """Draw the whole network, and beside it the one that a mask has thinned.

    A layer with many units shows some of them, spread evenly.
    """
    figure = Figure(figsize=(11, 5), layout="constrained")
    whole, thin = figure.subplots(1, 2)
    _draw(whole, [Units(column.name, column.number) for column in columns])
    whole.set_title("the network: at inference every unit works", fontsize=10)
    _draw(thin, columns)
    thin.set_title("thinned: what a mask leaves of it in training", fontsize=10)
    return figure


def _draw(axes: Axes, columns: Sequence[Units]) -> None:
    shown = [_shown(column) for column in columns]
    edges = [
        [(x, y), (x + 1, y_next)]
        for x, (left, right) in enumerate(pairwise(shown))
        for (y, kept), (y_next, kept_next) in product(left, right)
        if kept and kept_next
    ]
    axes.add_collection(LineCollection(edges, color="black", lw=0.4, alpha=0.5))
    for x, (column, units) in enumerate(zip(columns, shown, strict=True)):
        kept = [y for y, is_kept in units if is_kept]
        dropped = [y for y, is_kept in units if not is_kept]
        axes.scatter([x] * len(kept), kept, 150, "white", edgecolors="black", zorder=2)
        axes.scatter([x] * len(dropped), dropped, 150, "0.92", edgecolors="0.7")
        axes.scatter([x] * len(dropped), dropped, 60, "tab:red", marker="x")
        axes.text(x, -0.08, _caption(column), ha="center", va="top", fontsize=7)
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(-0.22, 1.05))
    axes.axis("off")


def _shown(column: Units) -> list[tuple[float, bool]]:
    """Return the height of each unit shown, and whether it is kept."""
    count = min(column.number, _MOST_SHOWN)
    chosen = np.linspace(0, column.number - 1, count).round().astype(int)
    heights = (np.arange(count) + 0.5) / count
    kept = np.ones(count, bool) if column.kept is None else column.kept[chosen]
    return list(zip(heights.tolist(), kept.tolist(), strict=True))


def _caption(column: Units) -> str:
    kept = "" if column.kept is None else f"{np.count_nonzero(column.kept)} of "
    return f"{column.name.replace(': ', chr(10))}\n{kept}{column.number}"
