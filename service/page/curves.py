"""Training curves of one run, and of several side by side."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

History = Sequence[Mapping[str, float]]

_MEASURES = ("loss", "accuracy")


def curves(history: History, epochs: int) -> Figure:
    """Draw the loss and accuracy of a run so far, in training and validation."""
    figure, panels = _panels(epochs)
    for axes, name in zip(panels, _MEASURES, strict=True):
        for column, label, marker in (
            (name, "training, dropout on", "o"),
            (f"val_{name}", "validation", "s"),
        ):
            _draw(axes, history, column, label, marker)
        axes.set_ylabel(name)
        axes.legend()
    return figure


def comparison(histories: Mapping[str, History], epochs: int) -> Figure:
    """Draw the validation loss and accuracy of several runs, by their labels."""
    figure, panels = _panels(epochs)
    for axes, name in zip(panels, _MEASURES, strict=True):
        for label, history in histories.items():
            _draw(axes, history, f"val_{name}", label, "o")
        axes.set_ylabel(f"validation {name}")
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _panels(epochs: int) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    panels = figure.subplots(1, len(_MEASURES))
    for axes in panels:
        axes.set(xlabel="epoch", xlim=(0.5, epochs + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
    return figure, panels


def _draw(axes: Axes, history: History, column: str, label: str, marker: str) -> None:
    epochs = [row["epoch"] for row in history]
    axes.plot(
        epochs, [row[column] for row in history], marker=marker, ms=4, label=label
    )
