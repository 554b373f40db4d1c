"""The form that every experiment has."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from experiments.lab import Lab

SEEDS = (1, 2, 3, 4, 5)
PAPER_SEEDS = (11, 12, 13, 14, 15, 16, 17, 18, 19, 20)  # 1 to 5 had been looked at
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
        p: The p-value of the headline, if there is a test of it.
        remark: What else there is to say, such as what was tried.
    """

    holds: bool
    measured: str
    numbers: Sequence[Number] = ()
    p: float | None = None
    remark: str = ""


@dataclass(frozen=True)
class Experiment:
    """A claim, and what it takes to see whether it holds.

    Attributes:
        name: As on the command line.
        title: A few words.
        claim: What the paper says.
        source: Where the paper says it.
        criterion: When the claim holds; fixed before the first full run.
        full: The configuration, a dataclass.
        quick: A small configuration that shows that the experiment runs, no more.
        run: Makes the measurements, each through `Lab.once`, and returns them.
        analyse: Applies the criterion to the measurements.
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
    """Return one value of every seed's measurement."""
    return [measurement[name] for measurement in measurements]


def mean_and_range(values: Sequence[float], digits: int = 2) -> str:
    """Return the mean over the seeds, the smallest and the largest value."""
    mean = sum(values) / len(values)
    return f"{mean:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
