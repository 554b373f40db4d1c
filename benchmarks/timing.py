"""Time candidates in turn, call by call, so that all see the same machine."""

import datetime
import gc
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from training.machine import num_cores, processor

Step = Callable[[], Any]

WARM_UP = 3
FEWEST_ROUNDS = 9
MOST_ROUNDS = 1000
PACKAGES = ("kerasnorm", "tensorflow", "keras", "jax", "flax", "torch", "numpy")


@dataclass(frozen=True)
class Timing:
    """The seconds of every call: for each candidate, one a round."""

    seconds: Mapping[str, Sequence[float]]

    def median(self, name: str) -> float:
        """Return the candidate's median."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, base: str) -> float:
        """Return the candidate's median as a multiple of `base`'s."""
        return self.median(name) / self.median(base)

    def paired_ratio(self, name: str, base: str) -> float:
        """Return the median over the rounds of the candidate's time / `base`'s time."""
        pairs = zip(self.seconds[name], self.seconds[base], strict=True)
        return statistics.median(one / other for one, other in pairs)

    def summary(self, base: str) -> dict[str, dict[str, float]]:
        """Return what is kept of each candidate's calls."""
        result = {}
        for name, seconds in self.seconds.items():
            lower, _, upper = statistics.quantiles(seconds, method="inclusive")
            result[name] = {
                "median": self.median(name),
                "lower_quartile": lower,
                "upper_quartile": upper,
                "ratio": self.ratio(name, base),
                "paired_ratio": self.paired_ratio(name, base),
                "rounds": len(seconds),
            }
        return result


def interleave(
    candidates: Mapping[str, Step],
    budget: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Call the candidates in turn, in a new order every round.

    In a fixed order a candidate would always follow the same other one, and run with
    its caches and its threads that still spin.

    Args:
        candidates: What to call, by name.
        budget: The seconds to spend. There are at least `FEWEST_ROUNDS` rounds.
        clock: Returns the seconds.
    """
    for _ in range(WARM_UP):
        for step in candidates.values():
            step()
    start = clock()
    for step in candidates.values():
        step()
    affordable = int(budget / (clock() - start))
    rounds = min(max(affordable, FEWEST_ROUNDS), MOST_ROUNDS)
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    order = list(candidates)
    shuffle = random.Random(0).shuffle
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            shuffle(order)
            for name in order:
                start = clock()
                candidates[name]()
                seconds[name].append(clock() - start)
    finally:
        gc.enable()
    return Timing(seconds)


def environment() -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": processor(),
        "threads": num_cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
