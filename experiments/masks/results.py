"""Results of statistical tests: statistics, expected values, two-sided p-values."""

import math
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray


class Result(NamedTuple):
    """One statistic, its expected value (its median, of a largest) and its p-value."""

    test: str
    sample: str
    statistic: str
    value: float
    expected: float
    p_value: float


def of_deviations(test: str, sample: str, z: NDArray[Any]) -> list[Result]:
    """The largest of uncorrelated standard normal deviates, and the sum of squares."""
    squares = float(np.sum(np.square(z)))
    total = f"sum of {z.size:,} squares"
    return [
        largest(test, sample, z),
        Result(test, sample, total, squares, z.size, chi_square(squares, z.size)),
    ]


def largest(test: str, sample: str, z: NDArray[Any]) -> Result:
    """The largest |z|: Šidák's p-value, exact where independent, else too large."""
    value = float(np.max(np.abs(z)))
    median = -NormalDist().inv_cdf(-math.expm1(-math.log(2) / z.size) / 2)
    p_value = of_many(math.erfc(value / math.sqrt(2)), z.size)
    return Result(
        test, sample, f"largest of {z.size:,} deviations", value, median, p_value
    )


def largest_power(test: str, sample: str, power: NDArray[Any]) -> Result:
    """The largest of Fourier powers, each exponential with mean 1."""
    value = float(np.max(power))
    median = -math.log(-math.expm1(-math.log(2) / power.size))
    p_value = of_many(math.exp(-value), power.size)
    name = f"largest of {power.size:,} powers"
    return Result(test, sample, name, value, median, p_value)


def binomial(test: str, sample: str, kept: int, n: int, probability: float) -> Result:
    """A count of successes. Its distribution is an incomplete beta function."""
    below = betainc(n - kept, kept + 1, 1 - probability) if kept < n else 1.0
    above = betainc(kept, n - kept + 1, probability) if kept > 0 else 1.0
    expected = n * probability
    return Result(test, sample, "count", kept, expected, two_sided(below, above))


def poisson(test: str, sample: str, count: int, expected: float) -> Result:
    """A count of rare events. Its distribution is an incomplete gamma function."""
    below = igammac(count + 1, expected)
    above = igamma(count, expected) if count > 0 else 1.0
    return Result(test, sample, "count", count, expected, two_sided(below, above))


def uniform_cells(test: str, codes: NDArray[np.int64], size: int) -> Result:
    """Pearson's chi-square of equally likely cells."""
    expected = codes.size / size
    counts = np.bincount(codes, minlength=size)
    value = float(np.sum(np.square(counts - expected)) / expected)
    sample = f"{codes.size:,} in {size:,} cells"
    p_value = chi_square(value, size - 1)
    return Result(test, sample, "chi-square", value, size - 1, p_value)


def chi_square(value: float, degrees: int) -> float:
    """Two-sided: too even is as suspect as too uneven."""
    return two_sided(igamma(degrees / 2, value / 2), igammac(degrees / 2, value / 2))


def two_sided(below: float, above: float) -> float:
    """The p-value from the probabilities of both tails."""
    return min(1.0, 2 * min(below, above))


def of_many(p_value: float, tests: int) -> float:
    """The p-value of the smallest of `tests` p-values (Šidák)."""
    return -math.expm1(tests * math.log1p(-p_value)) if p_value < 1 else 1.0


def betainc(a: float, b: float, x: float) -> float:
    """The regularized incomplete beta function."""
    return float(tf.math.betainc(*(tf.constant(v, tf.float64) for v in (a, b, x))))


def igamma(a: float, x: float) -> float:
    """The regularized lower incomplete gamma function."""
    return float(tf.math.igamma(tf.constant(a, tf.float64), tf.constant(x, tf.float64)))


def igammac(a: float, x: float) -> float:
    """The regularized upper incomplete gamma function."""
    return float(
        tf.math.igammac(tf.constant(a, tf.float64), tf.constant(x, tf.float64))
    )
