"""Where `ShiftMonitor` writes: a CSV file, TensorBoard, a picture."""

import csv
import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from kerasnorm.monitor.observation import PERCENTILES, disagreement

Rows = Sequence[Mapping[str, Any]]
"""One row for each layer."""

DISTRIBUTIONS = ("input", "output", "moving_mean", "moving_variance")
MEASURES = (
    *(f"{name}_{p}" for name in DISTRIBUTIONS for p in PERCENTILES),
    "mean_shift",
    "variance_ratio",
)
COLUMNS = ("step", "epoch", "layer", *MEASURES)

LONGEST_NAME = 30
"""Characters of a layer's name that fit over a panel."""


class Report(Protocol):
    """Where to write records."""

    def write(self, rows: Rows) -> None:
        """Add one record."""

    def close(self) -> None:
        """Close what is open."""


class CsvReport:
    """A CSV file. It is closed after each record, so it is always whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("w", newline="") as file:
            csv.writer(file).writerow(COLUMNS)

    def write(self, rows: Rows) -> None:
        """Add one record."""
        with self._path.open("a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerows(rows)

    def close(self) -> None:
        """Do nothing."""


class TensorBoardReport:
    """A directory for TensorBoard, one scalar for each measure and layer."""

    def __init__(self, log_dir: Path) -> None:
        # TensorFlow's `tf.summary.scalar` is TensorBoard's.
        if not all(map(importlib.util.find_spec, ("tensorflow", "tensorboard"))):
            raise ImportError(
                "`log_dir` needs TensorFlow and TensorBoard. Install them: "
                "pip install tensorflow tensorboard"
            )
        import tensorflow as tf

        self._summary = tf.summary
        self._writer = tf.summary.create_file_writer(str(log_dir))

    def write(self, rows: Rows) -> None:
        """Add one record."""
        with self._writer.as_default():
            for row in rows:
                for measure in MEASURES:
                    tag = f"{measure}/{row['layer']}"
                    self._summary.scalar(tag, row[measure], step=row["step"])
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


def draw(history: Rows, tolerance: float, path: Path) -> None:
    """Draw the percentiles over the steps, in a panel for each layer."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise ImportError(
            "`ShiftMonitor.plot` needs matplotlib. Install it: pip install matplotlib"
        ) from error
    layers: dict[str, list[Mapping[str, Any]]] = {}
    for row in history:
        layers.setdefault(row["layer"], []).append(row)
    columns = math.ceil(math.sqrt(len(layers)))
    rows = math.ceil(len(layers) / columns)
    figure = Figure(figsize=(3 * columns, 2.2 * rows + 0.8), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False).flat
    for axes in panels[len(layers) :]:
        axes.remove()
    for axes, (layer, records) in zip(panels, layers.items(), strict=False):
        _draw_layer(axes, layer, records)
        if disagreement(records[-1]) > tolerance:
            axes.title.set_color("tab:red")
    for axes in panels[max(len(layers) - columns, 0) : len(layers)]:
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("training step", fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        title=f"layer in red: beyond tolerance={tolerance:g}",
        loc="outside upper center",
        ncols=2 if columns == 1 else 4,
        fontsize=7,
        title_fontsize=7,
    )
    figure.savefig(path, dpi=150)


def _draw_layer(axes: Any, layer: str, records: Rows) -> None:
    steps = [row["step"] for row in records]
    for side, color, marker in (
        ("input", "tab:blue", "o"),
        ("output", "tab:orange", "x"),
    ):
        low, median, high = (
            [row[f"{side}_{p}"] for row in records] for p in PERCENTILES
        )
        line = {"color": color, "marker": marker if len(records) == 1 else None}
        axes.plot(steps, median, label=f"{side}s: median", **line)
        axes.plot(steps, low, "--", lw=0.8, label="15 % and 85 %", **line)
        axes.plot(steps, high, "--", lw=0.8, **line)
        if side == "input":
            axes.fill_between(steps, low, high, color=color, alpha=0.2, lw=0)
    name = layer if len(layer) <= LONGEST_NAME else f"…{layer[1 - LONGEST_NAME :]}"
    last = records[-1]
    axes.set_title(
        f"{name}\nmean shift {last['mean_shift']:.2g}, "
        f"variance ratio {last['variance_ratio']:.2g}",
        fontsize=8,
    )
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
