"""The form that every experiment has."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from experiments.lab import Lab

SEEDS = (1, 2, 3, 4, 5)
TUNING_SEED = 0


@dataclass(frozen=True)
class Number:
    """One line of an experiment's table."""

    what: str
    ours: str
    paper: str = ""


@dataclass(frozen=True)
class Finding:
    """What an experiment has shown.

    Attributes:
        holds: Whether the criterion is met.
        measured: What was found, in one line.
        numbers: The table.
        p: The p-value of the headline, where a test belongs to it.
        remark: What else has to be said, for instance what was tried.
    """

    holds: bool
    measured: str
    numbers: Sequence[Number] = ()
    p: float | None = None
    remark: str = ""


@dataclass(frozen=True)
class Experiment:
    """A claim, and all that is needed to see whether it holds.

    Attributes:
        name: As on the command line.
        title: A few words.
        claim: What is said.
        source: Where it is said.
        criterion: When it is taken to hold; fixed before the first full run.
        full: The configuration: a dataclass.
        quick: The same in small, to see that it runs. It shows nothing.
        run: Makes the measurements, each through `Lab.once`, and returns them.
        analyse: The criterion as code, on the measurements.
        plot: Draws the measurements.
    """

    name: str
    title: str
    claim: str
    source: str
    criterion: str
    full: Any
    quick: Any
    run: Callable[[Lab, Any], dict[str, Any]]
    analyse: Callable[[dict[str, Any], Any], Finding]
    plot: Callable[[dict[str, Any], Figure], None]


def column(measurements: Sequence[dict[str, Any]], name: str) -> list[Any]:
    """One value of every seed's measurement."""
    return [measurement[name] for measurement in measurements]


def mean_and_range(values: Sequence[float], digits: int = 2) -> str:
    """The mean over the seeds, and the smallest and largest."""
    mean = sum(values) / len(values)
    return f"{mean:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
