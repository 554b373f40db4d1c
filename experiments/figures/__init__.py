"""The figures of the guide, drawn from real runs: `python -m experiments figures`."""

import json
from collections.abc import Callable
from pathlib import Path

from experiments.figures import (
    dropout,
    ensemble,
    inputs,
    layer,
    order,
    placement,
    shift,
)
from experiments.figures.drawing import DPI, Drawn

OUTPUT = Path(__file__).resolve().parents[2] / "docs" / "figures" / "guide"

FIGURES: dict[str, Callable[[], Drawn]] = {
    "overfitting": dropout.overfitting,
    "co-adaptation": dropout.co_adaptation,
    "thinned": dropout.thinned,
    "unit": dropout.unit,
    "ensemble": ensemble.ensemble,
    "monte-carlo": ensemble.monte_carlo,
    "input-normalization": inputs.input_normalization,
    "bn-placement": placement.placement,
    "bn-layer": layer.parameters,
    "bn-computation": layer.computation,
    "bn-moving-average": layer.moving_average,
    "bn-inference": layer.inference,
    "bn-speed": shift.speed,
    "bn-percentiles": shift.percentiles,
    "order": order.order,
}


def main(output: Path = OUTPUT, names: list[str] | None = None) -> None:
    """Run the trainings and draw the figures, and write down their numbers.

    Args:
        output: Directory for `NAME.png` and for `numbers.json`, what each figure
            measured.
        names: Which figures. Defaults to all.
    """
    output.mkdir(parents=True, exist_ok=True)
    path = output / "numbers.json"
    numbers = json.loads(path.read_text()) if path.is_file() else {}
    for name in names or FIGURES:
        figure, found = FIGURES[name]()
        numbers[name] = {key: float(f"{value:.5g}") for key, value in found.items()}
        figure.savefig(output / f"{name}.png", dpi=DPI)
        path.write_text(json.dumps(numbers, indent=2, sort_keys=True) + "\n")
        print(f"{output / name}.png")
