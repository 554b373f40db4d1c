"""Single layers: every shape, dtype and mode beside the alternatives."""

import gc
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from benchmarks import memory
from benchmarks.quiet import measure
from benchmarks.steps import LAYERS, Case, candidates, own
from benchmarks.steps.cases import describe

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
GPU_SHAPES = [(256, 56, 56, 64), (256, 14, 14, 512), (8192, 4096)]
GPU_DROPOUT = (12_500, 8_000)
"""1e8 elements."""
KERAS_XLA_LIMIT = 2**23
"""Keras's dropout under XLA is timed up to this many elements, where it takes 1.6 s."""


def cases(quick: bool) -> Iterator[Case]:
    """Yield the cases: all shapes in the ordinary way, fewer in the others."""
    if quick:
        for layer in LAYERS:
            shapes = (SMALL[-1], LARGE[-1])
            yield from (Case(layer, s) for s in shapes if _takes(layer, s))
    elif own.DEVICE != "cpu":
        yield from gpu_cases()
    else:
        yield from cpu_cases()


def gpu_cases() -> Iterator[Case]:
    """Yield shapes of real training."""
    for dtype in ("float32", "bfloat16"):
        for shape in GPU_SHAPES:
            yield Case("batch_norm", shape, dtype)
        for layer in ("dropout", "gaussian_dropout"):
            yield Case(layer, GPU_DROPOUT, dtype)
        yield Case("spatial_dropout", GPU_SHAPES[0], dtype)


def cpu_cases() -> Iterator[Case]:
    """Yield all shapes, with graphs in which more or less is known, and inference."""
    for layer in ("batch_norm", "dropout"):
        yield from (Case(layer, shape) for shape in SHAPES)
        if own.HAS_GRAPHS:
            for shape in SHAPES:
                dropout = layer == "dropout"
                if not dropout or Case(layer, shape).elements <= KERAS_XLA_LIMIT:
                    yield Case(layer, shape, xla=True)
            for shape in (*SMALL, *LARGE):
                yield Case(layer, shape, known_batch=False)
        for dtype in ("bfloat16", "float16"):
            for shape in (SMALL[-1], *LARGE):
                yield Case(layer, shape, dtype)
    for layer in ("gaussian_dropout", "spatial_dropout"):
        shapes = (SMALL[0], SMALL[-1], *LARGE)
        yield from (Case(layer, s) for s in shapes if _takes(layer, s))
    yield Case("batch_norm", CHANNELS_FIRST, axis=1)
    yield from (Case("batch_norm", shape, training=False) for shape in SHAPES)


def _takes(layer: str, shape: tuple[int, ...]) -> bool:
    """Return whether a layer takes inputs of a shape: only images have feature maps."""
    return layer != "spatial_dropout" or len(shape) == 4


def run(quick: bool, patience: float) -> dict[str, Any]:
    """Time all cases, and measure the peak memory on the large images."""
    timings = []
    for case in cases(quick):
        print(describe(case), flush=True)
        measured = measure(candidates(case), 0.5 if quick else 2.0, patience)
        timings.append({"case": asdict(case), **measured})
        gc.collect()
    is_counted = own.DEVICE == "cpu" and not quick
    return {"timings": timings, "memory": peaks() if is_counted else []}


def peaks() -> list[dict[str, Any]]:
    """Return the peak memory of a training step on the large images."""
    rows = []
    for layer in LAYERS:
        for xla in (False, True) if own.HAS_GRAPHS else (False,):
            case = Case(layer, LARGE[-1], xla=xla)
            costs = memory.measure_costs(
                {
                    library: (own.layer_step, (case, library))
                    for library in LAYERS[layer]
                },
                repeats=1,
            )
            peak = {library: cost.peak for library, cost in costs.items()}
            rows.append({"case": asdict(case), "peak": peak})
    return rows
