"""Results of statistical tests: statistic, expected value, two-sided p-value."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats


class Result(NamedTuple):
    """A statistic, its expected value (for a largest, its median) and its p-value."""

    test: str
    sample: str
    statistic: str
    value: float
    expected: float
    p_value: float


def of_deviations(test: str, sample: str, z: NDArray[Any]) -> list[Result]:
    """Judge uncorrelated standard normal deviates: the largest, and their squares."""
    squares = float(np.sum(np.square(z)))
    total = f"sum of {z.size:,} squares"
    return [
        largest(test, sample, z),
        Result(test, sample, total, squares, z.size, chi_square(squares, z.size)),
    ]


def largest(test: str, sample: str, z: NDArray[Any]) -> Result:
    """Judge the largest |z| by Šidák's p-value, too large if they are dependent."""
    value = float(np.max(np.abs(z)))
    median = float(stats.norm.isf(of_one(0.5, z.size) / 2))
    p_value = of_many(2 * float(stats.norm.sf(value)), z.size)
    return Result(
        test, sample, f"largest of {z.size:,} deviations", value, median, p_value
    )


def largest_power(test: str, sample: str, power: NDArray[Any]) -> Result:
    """Judge the largest of Fourier powers, each exponential with mean 1."""
    value = float(np.max(power))
    median = float(stats.expon.isf(of_one(0.5, power.size)))
    p_value = of_many(float(stats.expon.sf(value)), power.size)
    name = f"largest of {power.size:,} powers"
    return Result(test, sample, name, value, median, p_value)


def binomial(test: str, sample: str, kept: int, n: int, probability: float) -> Result:
    """Judge a count of successes."""
    p_value = two_sided_of_count(stats.binom(n, probability), kept)
    return Result(test, sample, "count", kept, n * probability, p_value)


def poisson(test: str, sample: str, count: int, expected: float) -> Result:
    """Judge a count of rare events."""
    p_value = two_sided_of_count(stats.poisson(expected), count)
    return Result(test, sample, "count", count, expected, p_value)


def uniform_cells(test: str, codes: NDArray[np.int64], size: int) -> Result:
    """Judge the counts of equally likely cells by Pearson's chi-square."""
    expected = codes.size / size
    counts = np.bincount(codes, minlength=size)
    value = float(np.sum(np.square(counts - expected)) / expected)
    sample = f"{codes.size:,} in {size:,} cells"
    p_value = chi_square(value, size - 1)
    return Result(test, sample, "chi-square", value, size - 1, p_value)


def chi_square(value: float, degrees: int) -> float:
    """Return the two-sided p-value: too even is as suspect as too uneven."""
    distribution = stats.chi2(degrees)
    return two_sided(distribution.cdf(value), distribution.sf(value))


def two_sided_of_count(distribution: Any, count: int) -> float:
    """Return the p-value of a count; both tails include the count itself."""
    return two_sided(distribution.cdf(count), distribution.sf(count - 1))


def two_sided(below: float, above: float) -> float:
    """Return the p-value from the probabilities of both tails."""
    return min(1.0, 2 * float(min(below, above)))


def of_many(p_value: float, tests: int) -> float:
    """Return the p-value of the smallest of `tests` p-values (Šidák)."""
    return -math.expm1(tests * math.log1p(-p_value)) if p_value < 1 else 1.0


def of_one(p_value: float, tests: int) -> float:
    """Return the p-value that each of `tests` has if the smallest has `p_value`."""
    return -math.expm1(math.log1p(-p_value) / tests)
