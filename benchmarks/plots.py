"""Results as pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.tables import as_case, fastest_native

COLOURS = {
    "kerasnorm": "#0072b2",
    "folded": "#56b4e9",
    "keras": "#d55e00",
    "native": "#009e73",
    "neither": "#999999",
    "floor": "#333333",
}
DPI = 150


def draw_timings(results: dict[str, Any], path: Path) -> None:
    """Draw the layers' training steps in float32, as multiples of the floor."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True)
    for axes, layer in zip(panels, ("batch_norm", "dropout"), strict=True):
        rows = [
            (case, row["times"])
            for row in results["timings"]
            if (case := as_case(row["case"])).layer == layer
            and case == type(case)(layer, case.shape)
        ]
        for name in ("kerasnorm", "keras", "native"):
            points = [
                (times[key]["median"] / case.copies / times["copy"]["median"], y)
                for y, (case, times) in enumerate(rows)
                if (key := fastest_native(times) if name == "native" else name)
            ]
            if points:
                axes.plot(*zip(*points, strict=True), "o", c=COLOURS[name], label=name)
        axes.axvline(1, color=COLOURS["floor"], lw=1, ls="--", label="floor")
        axes.set_yticks(range(len(rows)), [str(case.shape) for case, _ in rows])
        axes.set(xscale="log", xlabel="time / floor", title=layer.replace("_", " "))
        axes.invert_yaxis()
        axes.grid(alpha=0.3)
    panels[0].legend()
    figure.suptitle(
        "Forward and backward, float32; the floor is the time to move the bytes"
    )
    figure.savefig(path, dpi=DPI)


def draw_models(results: dict[str, Any], path: Path) -> None:
    """Draw the training steps of whole models."""
    _draw_bars(
        [(row["network"], row["times"]) for row in results["models"]],
        "Training step, batch 128 (32 for keras.applications)",
        path,
    )


def draw_inference(results: dict[str, Any], path: Path) -> None:
    """Draw the answers of exported models."""
    _draw_bars(
        [(f"{r['network']}\n{r['batch']}", r["times"]) for r in results["inference"]],
        "An answer, by batch size",
        path,
    )


def draw_scaling(results: dict[str, Any], path: Path) -> None:
    """Draw the time over the number of elements, and a line through our last point."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, layer in zip(panels, ("batch_norm", "dropout"), strict=True):
        rows = [row for row in results["scaling"] if row["layer"] == layer]
        elements = [row["elements"] for row in rows]
        for name in ("kerasnorm", "keras"):
            seconds = [row["times"][name]["median"] for row in rows]
            axes.plot(
                elements, [1e3 * s for s in seconds], "o-", c=COLOURS[name], label=name
            )
        slowest = 1e3 * rows[-1]["times"]["kerasnorm"]["median"]
        axes.plot(
            elements,
            [slowest * e / elements[-1] for e in elements],
            "--",
            c=COLOURS["floor"],
            label="linear",
        )
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="elements",
            ylabel="milliseconds",
            title=layer.replace("_", " "),
        )
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle("Forward and backward on (samples, 64), float32")
    figure.savefig(path, dpi=DPI)


PLOTS: dict[str, Callable[[dict[str, Any], Path], None]] = {
    "layers": draw_timings,
    "models": draw_models,
    "inference": draw_inference,
    "scaling": draw_scaling,
}


def _draw_bars(rows: list[tuple[str, Any]], title: str, path: Path) -> None:
    """Draw medians and quartiles, divided by the median of the model with neither."""
    figure = Figure(figsize=(max(6, 1.4 * len(rows)), 4), layout="constrained")
    axes = figure.subplots()
    names = [n for n in ("neither", "folded", "kerasnorm", "keras") if n in rows[0][1]]
    width = 0.8 / len(names)
    for offset, name in enumerate(names):
        times = [row_times[name] for _, row_times in rows]
        bases = [row_times["neither"]["median"] for _, row_times in rows]
        medians, lower, upper = (
            [time[key] / base for time, base in zip(times, bases, strict=True)]
            for key in ("median", "lower_quartile", "upper_quartile")
        )
        axes.bar(
            [x + width * (offset - (len(names) - 1) / 2) for x in range(len(rows))],
            medians,
            width=0.95 * width,
            color=COLOURS[name],
            label=name,
            yerr=[
                [m - q for m, q in zip(medians, lower, strict=True)],
                [q - m for m, q in zip(medians, upper, strict=True)],
            ],
            error_kw={"lw": 1},
        )
    axes.set_xticks(range(len(rows)), [label for label, _ in rows])
    axes.set(ylabel="time / time with neither", title=title)
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside right upper")
    figure.savefig(path, dpi=DPI)
