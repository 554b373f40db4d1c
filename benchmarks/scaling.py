"""How the time of a training step grows with the number of elements."""

import gc
from typing import Any

from benchmarks.quiet import measure
from benchmarks.steps import LAYERS, Case, own

FEATURES = 64
ELEMENTS = [round(10 ** (exponent / 2)) for exponent in range(8, 17)]
"""1e4 to 1e8, two to a decade."""


def run(quick: bool, patience: float) -> dict[str, Any]:
    """Time the layers on (samples, 64) in the ordinary way."""
    rows = []
    for layer in ("batch_norm", "dropout"):
        for elements in ELEMENTS[:5] if quick else ELEMENTS:
            case = Case(layer, (elements // FEATURES, FEATURES))
            steps = {
                library: own.layer_step(case, library) for library in LAYERS[layer]
            }
            steps["copy"] = own.copy_step(case)
            measured = measure(steps, 0.5 if quick else 2, patience)
            rows.append({"layer": layer, "elements": case.elements, **measured})
            gc.collect()
    return {"scaling": rows}
