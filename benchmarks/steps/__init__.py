"""One step of one layer: ours, Keras's or the framework's own, or a copy of the input.

Each backend has the functions `layer_step`, `native_steps` and `copy_step`.
"""

import importlib

import keras

from benchmarks.steps.cases import LAYERS, Case
from benchmarks.timing import Step

own = importlib.import_module(f"benchmarks.steps.{keras.backend.backend()}")


def candidates(case: Case) -> dict[str, Step]:
    """Make all candidates of a case."""
    return {
        **{library: own.layer_step(case, library) for library in LAYERS[case.layer]},
        **own.native_steps(case),
        "copy": own.copy_step(case),
    }
