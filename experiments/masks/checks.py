"""Statistical tests of the masks of a generator, each mask by itself.

A generator has the signature of `stream.words`. Each test returns `Result`s whose
p-values are uniform on (0, 1) if the masks are independent Bernoulli draws. The keys
and positions are fixed, so a result is the same whenever it is computed.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.masks.results import (
    Result,
    binomial,
    largest,
    largest_power,
    of_deviations,
    poisson,
    uniform_cells,
)
from experiments.masks.stream import SEED, Words, span

Generator = Callable[[Words, Words, Words], Words]
Mask = NDArray[np.bool_]

RATES = (2**-16, 0.001, 0.01, 0.1, 0.2, 0.3, 0.5, 0.8, 0.9, 0.99, 1 - 2**-16)


def draw(generate: Generator, size: int, count: int) -> Words:
    """Return the first `size` words of one key."""
    chunk = min(size, 2**16)
    key = span(SEED, 1), span(count, 1)
    return np.concatenate(
        [generate(span(start, chunk), *key) for start in range(0, size, chunk)]
    )


def halves(words: Words) -> NDArray[np.uint16]:
    """Return the draws of 16 bits in the order of units: a word's low half first."""
    return words.astype("<u4").view("<u2")


def keep(words: Words, rate: float) -> Mask:
    """Return what `functional.keep_mask` makes of the words."""
    return halves(words) >= round(rate * 2**16)


def keep_fraction(rate: float) -> float:
    """Return what `functional.keep_fraction` returns."""
    return 1 - round(rate * 2**16) / 2**16


def signs(words: Words) -> NDArray[np.float64]:
    """Return 1 for each unit that is kept at rate 0.5, -1 for each that is dropped."""
    return np.where(keep(words, 0.5), 1.0, -1.0)


def correlation(one: Mask, two: Mask, rate: float) -> float:
    """Return the masks' covariance in its standard errors."""
    p = keep_fraction(rate)
    kept = np.count_nonzero(one) + np.count_nonzero(two)
    covariance = np.count_nonzero(one & two) - p * kept + one.size * p**2
    return covariance / (math.sqrt(one.size) * p * (1 - p))


def frequency(generate: Generator, size: int) -> list[Result]:
    """Count the units kept at each rate, and the ones of each bit."""
    results = []
    for count, rate in enumerate(RATES):
        kept = int(np.count_nonzero(keep(draw(generate, size, count), rate)))
        name, sample = f"frequency, rate {rate:.6g}", f"{2 * size:,} units"
        results.append(binomial(name, sample, kept, 2 * size, keep_fraction(rate)))
    words = draw(generate, size, 50)
    ones = np.array([np.count_nonzero(words >> bit & 1) for bit in range(32)])
    z = (ones - size / 2) / math.sqrt(size / 4)
    return results + of_deviations("frequency of each bit", f"{size:,} words", z)


def serial(generate: Generator, size: int, rate: float) -> list[Result]:
    """Correlate a mask with itself at lags 1 to 64 and at powers of two."""
    mask = keep(draw(generate, size, 100), rate)
    lags = [*range(1, 65), *(2**k for k in range(7, size.bit_length()))]
    z = [correlation(mask[:-lag], mask[lag:], rate) for lag in lags]
    name = f"serial correlation, rate {rate:g}"
    return of_deviations(name, f"{2 * size:,} units", np.array(z))


def across_axes(
    generate: Generator, draws: int, shape: tuple[int, ...]
) -> list[Result]:
    """Correlate the masks along each axis, and count the units kept at each index.

    Correlated are indices next to each other, next but one, half the axis apart and at
    its ends.
    """
    units = math.prod(shape)
    masks = [keep(draw(generate, units // 2, 200 + i), 0.5) for i in range(draws)]
    stacked = np.reshape(masks, (draws, *shape))
    results = []
    for axis, length in enumerate(shape):
        mask = np.moveaxis(stacked, axis + 1, 1)
        offsets = (1, 2, length // 2, length - 1)
        z = [
            correlation(one, two, 0.5)
            for k in offsets
            for one, two in zip(mask[:, :-k], mask[:, k:], strict=True)
        ]
        name, sample = f"axis {axis} of {shape}", f"{draws} draws"
        results += of_deviations(f"correlation, {name}", sample, np.array(z))
        kept = np.count_nonzero(mask.reshape(draws, length, -1), axis=(0, 2))
        each = mask.size // length
        z = (kept - each / 2) / math.sqrt(each / 4)
        results += of_deviations(f"kept per index, {name}", sample, np.array(z))
    return results


def spectra(generate: Generator, size: int) -> list[Result]:
    """Look for every parity of a position's bits and every period within one mask.

    Correlate two consecutive masks too, at units i and i + d, and at i and i ^ d, for
    every d.
    """
    one, two = (signs(draw(generate, size // 2, count)) for count in (300, 301))
    scale = math.sqrt(size)
    walsh_one, fourier_one = walsh(one), np.fft.rfft(one)
    added = np.fft.irfft(np.conj(fourier_one) * np.fft.rfft(two)) / scale
    xored = walsh(walsh_one * walsh(two)) / size / scale
    sample = f"{size:,} units"
    return [
        largest("Walsh spectrum", sample, walsh_one / scale),
        largest_power(
            "Fourier spectrum", sample, np.abs(fourier_one[1:-1] / scale) ** 2
        ),
        largest("consecutive masks, every shift", sample, added),
        largest("consecutive masks, every exclusive or", sample, xored),
    ]


def walsh(values: NDArray[Any]) -> NDArray[Any]:
    """Return the Walsh-Hadamard transform in natural order."""
    half = 1
    while half < values.size:
        pair = values.reshape(-1, 2, half)
        first, second = pair[:, 0], pair[:, 1]
        values = np.stack([first + second, first - second], axis=1).ravel()
        half *= 2
    return values


def cells(generate: Generator, size: int) -> list[Result]:
    """Count pairs and triples of draws, by their high and by their low bits."""
    units = halves(draw(generate, size, 400)).astype(np.int64)
    word = units.reshape(-1, 2)
    bits = size.bit_length() - 6  # at least 16 to a cell
    groups = {
        "one draw": units[:, None],
        "both halves of a word": word,
        "halves of two words": units.reshape(-1, 4)[:, 1:3],
        "draws 64 apart": units.reshape(-1, 2, 64).swapaxes(1, 2).reshape(-1, 2),
        "three draws": units[: units.size // 3 * 3].reshape(-1, 3),
    }
    results = []
    for name, group in groups.items():
        width = group.shape[1]
        each = min(16, bits // width)
        place = 1 << each * np.arange(width)
        for which, digits in (
            ("high", group >> (16 - each)),
            ("low", group & (2**each - 1)),
        ):
            title = f"{name}, {which} {each} bits"
            results.append(uniform_cells(title, digits @ place, 2 ** (each * width)))
    each = bits // 2
    mixed = (word[:, 0] & (2**each - 1)) << each | word[:, 1] >> (16 - each)
    title = f"low half's low {each} bits, high half's high {each}"
    return [*results, uniform_cells(title, mixed, 4**each)]


def collisions(generate: Generator, size: int, draws: int) -> list[Result]:
    """Count words that were drawn before. A permutation of the positions has none."""
    repeated = sum(
        size - np.unique(draw(generate, size, 500 + count)).size
        for count in range(draws)
    )
    load = size / 2**32
    expected = draws * 2**32 * (math.expm1(-load) + load)
    sample = f"{draws} draws of {size:,} words"
    return [poisson("collisions", sample, repeated, expected)]
