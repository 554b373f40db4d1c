"""The memory and the first call of a step, measured in a process of its own."""

import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import keras

from benchmarks.timing import WARM_UP, Step
from training.errors import UserError

STEPS = 5
DEVICE = "CPU:0"


@dataclass(frozen=True)
class Cost:
    """Seconds of the first call, and bytes at the peak of the later ones."""

    first_call: float
    peak: float


def measure_costs(
    builders: Mapping[str, tuple[Callable[..., Step], tuple[Any, ...]]], repeats: int
) -> dict[str, Cost]:
    """Return the median costs of the candidates, taken in turn.

    Args:
        builders: For each candidate, the function that makes its step, and the
            function's arguments.
        repeats: The number of processes for each candidate.
    """
    costs: dict[str, list[Cost]] = {name: [] for name in builders}
    with ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), max_tasks_per_child=1
    ) as fresh_process:
        for _ in range(repeats):
            for name, (build, arguments) in builders.items():
                cost = fresh_process.submit(measure_cost, build, *arguments)
                costs[name].append(cost.result())
    return {
        name: Cost(
            statistics.median(cost.first_call for cost in found),
            statistics.median(cost.peak for cost in found),
        )
        for name, found in costs.items()
    }


def measure_cost(build: Callable[..., Step], *arguments: Any) -> Cost:
    """Make the step and measure it in this process."""
    step = build(*arguments)
    start = time.perf_counter()
    step()
    first_call = time.perf_counter() - start
    if keras.backend.backend() == "tensorflow":
        for _ in range(WARM_UP):
            step()
        return Cost(first_call, counted_peak(step))
    return Cost(first_call, resident_peak(step))


def counted_peak(step: Step) -> int:
    """Return the bytes that a step needs beyond what is allocated between its calls.

    TensorFlow's own account counts. TensorFlow keeps the memory that it has been given
    once, so the operating system does not see what a later step needs.

    Raises:
        UserError: If TensorFlow does not count, as on a CPU without oneDNN.
    """
    import tensorflow as tf

    try:
        tf.config.experimental.reset_memory_stats(DEVICE)
    except ValueError as error:
        raise UserError(
            "TensorFlow does not count the memory of this CPU, since it runs without "
            "oneDNN. Set TF_ENABLE_ONEDNN_OPTS=1."
        ) from error
    before = tf.config.experimental.get_memory_info(DEVICE)["current"]
    for _ in range(STEPS):
        step()
    return tf.config.experimental.get_memory_info(DEVICE)["peak"] - before


def resident_peak(step: Step) -> int:
    """Return the bytes by which steps raise the process's peak above its size now.

    JAX and PyTorch give large tensors back to the operating system, which counts.
    """
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak
    before = _status("VmRSS")
    for _ in range(STEPS):
        step()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    """Return a line of this process's status, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name):
            return 1024 * int(line.split()[1])
    raise ValueError(f"{name} must be a line of /proc/self/status.")
