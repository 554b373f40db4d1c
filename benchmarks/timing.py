"""Candidates timed in turn, call by call, so that all see the same machine."""

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
PACKAGES = ("kerasnorm", "tensorflow", "keras", "torch", "numpy")


@dataclass(frozen=True)
class Timing:
    """Seconds of every call: for each candidate, one a round."""

    seconds: Mapping[str, Sequence[float]]

    def median(self, name: str) -> float:
        """The candidate's median."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, base: str) -> float:
        """How many times as long as `base`'s the candidate's median is."""
        return self.median(name) / self.median(base)

    def paired_ratio(self, name: str, base: str) -> float:
        """The median over the rounds of the candidate's time over `base`'s."""
        pairs = zip(self.seconds[name], self.seconds[base], strict=True)
        return statistics.median(one / other for one, other in pairs)

    def summary(self, base: str) -> dict[str, dict[str, float]]:
        """What is kept of the calls, for each candidate."""
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

    With a fixed order one candidate would always run on the caches and the still
    spinning threads that the same other one has left.

    Args:
        candidates: What to call, by name.
        budget: Seconds to spend; at least `FEWEST_ROUNDS` rounds are made.
        clock: Tells the seconds.
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
    """What the figures depend on."""
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
