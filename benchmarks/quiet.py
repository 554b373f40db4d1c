"""Timing on a shared machine: wait until it is quiet, and record how quiet it was."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.timing import Step, interleave

QUIET = 0.1
"""The cores that other processes may use on average during a timing."""


def measure(
    candidates: Mapping[str, Step], budget: float, patience: float
) -> dict[str, Any]:
    """Time the candidates until other processes disturb them little.

    Args:
        candidates: What to call, by name.
        budget: The seconds of one timing.
        patience: The seconds after which a disturbed timing is no longer repeated.

    Returns:
        Of the least disturbed timing: the summary as `times`, and as `others` the
        cores that other processes used meanwhile.
    """
    deadline = time.monotonic() + patience
    results = []
    while True:
        wait_for_quiet(deadline)
        timing, others = during(lambda: interleave(candidates, budget))
        results.append({"times": timing.summary("kerasnorm"), "others": others})
        if others <= QUIET or time.monotonic() >= deadline:
            return min(results, key=lambda result: result["others"])


def during(run: Callable[[], Any]) -> tuple[Any, float]:
    """Return what `run` returns, and the cores that other processes used meanwhile."""
    start, busy, own = time.monotonic(), busy_seconds(), time.process_time()
    result = run()
    others = busy_seconds() - busy - (time.process_time() - own)
    return result, max(others, 0.0) / (time.monotonic() - start)


def wait_for_quiet(deadline: float) -> None:
    """Wait until other processes are quiet, or until the deadline."""
    while time.monotonic() < deadline:
        _, others = during(lambda: time.sleep(1))
        if others <= QUIET:
            return


def busy_seconds() -> float:
    """Return the seconds that all cores have been busy, for the hypervisor too."""
    first_line = Path("/proc/stat").read_text(encoding="utf-8").partition("\n")[0]
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(
        int, first_line.split()[1:]
    )
    ticks = user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")
