"""What a few paired runs show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences, its t interval and two-sided p-value."""

    mean: float
    lower: float
    upper: float
    p: float

    def __str__(self) -> str:
        return f"{self.mean:+.3g} [{self.lower:+.3g}, {self.upper:+.3g}]"

    @property
    def p_greater(self) -> float:
        """Return the one-sided p-value of a mean above 0."""
        return self.p / 2 if self.mean > 0 else 1 - self.p / 2


def paired_difference(
    first: Sequence[float], second: Sequence[float], confidence: float = CONFIDENCE
) -> Difference:
    """Return the mean of `first - second`, pair by pair, by Student's t.

    Args:
        first, second: One value for each seed, in the same order; at least two.
        confidence: That of the interval. Defaults to 0.95.

    Raises:
        ValueError: If there are fewer pairs, or not as many values in both.
    """
    values = np.array([a - b for a, b in zip(first, second, strict=True)], "float64")
    if len(values) < 2:
        raise ValueError(f"At least two pairs are needed. Received: {len(values)}.")
    mean = float(values.mean())
    if stats.sem(values) == 0:  # the same difference in every pair
        return Difference(mean, mean, mean, p=1.0 if mean == 0 else 0.0)
    test = stats.ttest_1samp(values, 0)
    interval = test.confidence_interval(confidence)
    return Difference(
        mean, float(interval.low), float(interval.high), float(test.pvalue)
    )


def sign_test(values: Sequence[float]) -> float:
    """Return the one-sided p-value of the count of positive values, zeros left out."""
    positive = sum(value > 0 for value in values)
    negative = sum(value < 0 for value in values)
    if positive + negative == 0:
        return 1.0
    return float(
        stats.binomtest(positive, positive + negative, alternative="greater").pvalue
    )


def log_rank(
    first: Sequence[float | None], second: Sequence[float | None], end: float
) -> float:
    """Return the one-sided p-value of `first` coming earlier, by the log-rank test.

    Args:
        first, second: Times of an event; `None` where it had not come by `end`.
        end: When it was no longer waited for.
    """
    samples = [
        stats.CensoredData(
            uncensored=[time for time in times if time is not None],
            right=[end for time in times if time is None],
        )
        for times in (first, second)
    ]
    if not any(sample.num_censored() < len(sample) for sample in samples):
        return 1.0  # it never came
    return float(stats.logrank(*samples, alternative="greater").pvalue)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return the p-values adjusted for their number: Holm 1979, step down."""
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, (len(p_values) - rank) * p_values[name])
        adjusted[name] = min(1.0, largest)
    return adjusted
