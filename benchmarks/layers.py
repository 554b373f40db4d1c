"""Single layers: every shape, dtype and mode beside the alternatives."""

import gc
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from benchmarks import memory
from benchmarks.quiet import measure
from benchmarks.steps import LAYERS, Case, candidates, tensorflow_step

SMALL = [(32, 16), (128, 64), (128, 256)]
LARGE = [(4096, 1024), (64, 32, 32, 64)]
SHAPES = [
    *SMALL,
    (128, 1024),
    (32, 8, 8, 256),
    *LARGE,
    (32, 56, 56, 64),
    (32, 112, 112, 64),
]
CHANNELS_FIRST = (64, 64, 32, 32)
KERAS_XLA_LIMIT = 2**23
"""Keras's dropout under XLA is timed up to this many elements, where it takes 1.6 s."""


def cases(quick: bool) -> Iterator[Case]:
    """Yield the cases: all shapes in an ordinary graph, fewer in the other ways."""
    if quick:
        for layer in LAYERS:
            yield from (Case(layer, shape) for shape in (SMALL[-1], LARGE[-1]))
        return
    for layer in LAYERS:
        yield from (Case(layer, shape) for shape in SHAPES)
        for shape in SHAPES:
            dropout = layer == "dropout"
            if not dropout or Case(layer, shape).elements <= KERAS_XLA_LIMIT:
                yield Case(layer, shape, xla=True)
        for shape in (*SMALL, *LARGE):
            yield Case(layer, shape, known_batch=False)
        for dtype in ("bfloat16", "float16"):
            for shape in (SMALL[-1], *LARGE):
                yield Case(layer, shape, dtype)
    yield Case("batch_norm", CHANNELS_FIRST, axis=1)
    yield from (Case("batch_norm", shape, training=False) for shape in SHAPES)


def run(quick: bool, patience: float) -> dict[str, Any]:
    """Time all cases, and measure the peak memory on the large images."""
    timings = []
    for case in cases(quick):
        measured = measure(candidates(case), 0.5 if quick else 2.0, patience)
        timings.append({"case": asdict(case), **measured})
        gc.collect()
    return {"timings": timings, "memory": [] if quick else peaks()}


def peaks() -> list[dict[str, Any]]:
    """Return the peak memory of a training step on the large images."""
    rows = []
    for layer in LAYERS:
        for xla in (False, True):
            case = Case(layer, LARGE[-1], xla=xla)
            costs = memory.measure_costs(
                {
                    library: (tensorflow_step, (case, library))
                    for library in LAYERS[layer]
                },
                repeats=1,
            )
            peak = {library: cost.peak for library, cost in costs.items()}
            rows.append({"case": asdict(case), "peak": peak})
    return rows
