"""The masks are what independent Bernoulli draws would be: a part of docs/masks.md.

Seeds are fixed. Of all seeds, one in ten million would fail this file.
"""

import itertools
import math

import numpy as np
import pytest
from keras import ops

from experiments.masks import checks, draws, results, stream
from experiments.masks.battery import battery, failures
from kerasnorm import functional
from tests import oracle

FALSE_ALARM = 1e-7
SIZE = 2**18


def test_no_test_of_the_battery_rejects_the_generator():
    assert not failures(list(battery(stream.words, SIZE)), FALSE_ALARM)


@pytest.mark.parametrize("seed", [(0, 0), (20261123, 7), (2**31 - 1, 2**31 - 5)])
def test_the_tested_words_are_the_layers(seed):
    positions = np.array([0, 1, 2, 12345, 2**24 + 3, 2**31 - 1], np.uint32)
    key = (np.array([part], np.uint32) for part in seed)
    ours = functional.random_words(
        ops.convert_to_tensor(positions.astype(np.int32)),
        ops.convert_to_tensor(np.array(seed, np.int32)),
    )
    np.testing.assert_array_equal(
        stream.words(positions, *key),
        ops.convert_to_numpy(ours).astype(np.uint32),
    )


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_the_tested_masks_are_the_layers(rate):
    words = checks.draw(stream.words, 2**17, 3)
    ours = functional.keep_mask(
        (2**18,), rate, ops.convert_to_tensor(np.array([stream.SEED, 3], np.int32))
    )
    np.testing.assert_array_equal(checks.keep(words, rate), ops.convert_to_numpy(ours))
    assert checks.keep_fraction(rate) == functional.keep_fraction(rate)


@pytest.mark.parametrize("kind", ["counts", "seeds"])
def test_the_stream_is_one_draw_after_the_other(kind):
    chunks = itertools.islice(stream.stream(kind, 4096), 2)
    drawn = np.concatenate([chunk.ravel() for chunk in chunks]).reshape(-1, 4096)
    for index, row in enumerate(drawn):
        key = (stream.SEED, index) if kind == "counts" else (index, 0)
        np.testing.assert_array_equal(row, oracle.random_words(4096, key))


def one_round(positions, seed, count):
    """A permutation of the positions."""
    return stream.mix(positions ^ stream.keys(seed, count)[0])


def shifted(positions, seed, count):
    return stream.mix(stream.mix(positions + seed + count) + seed)


def exclusive_or(positions, seed, count):
    return stream.mix(stream.mix(positions ^ seed ^ count) + seed)


def symmetric(positions, seed, count):
    return stream.words(positions, seed ^ count, seed + count)


def seed_of_31_bits(positions, seed, count):
    return stream.words(positions, seed & np.uint32(2**31 - 1), count)


def count_of_16_bits(positions, seed, count):
    return stream.words(positions, seed, count & np.uint32(2**16 - 1))


def deaf_to_replicas(positions, seed, count):
    return stream.words(positions, np.zeros_like(seed), count)


def linear_congruential(positions, seed, count):
    key_0, key_1 = stream.keys(seed, count)
    return positions * np.uint32(1664525) + key_0 + key_1


def a_bit_stuck_now_and_then(positions, seed, count):
    words = stream.words(positions, seed, count)
    return words | (positions % 64 == 0).astype(np.uint32) << 7


def equal_halves_now_and_then(positions, seed, count):
    words = stream.words(positions, seed, count)
    return np.where(positions % 32 == 0, words & 0xFFFF | words << 16, words)


def a_lucky_unit(positions, seed, count):
    words = stream.words(positions, seed, count)
    return np.where((positions == 77) & (words % 2 == 0), 0xFFFFFFFF, words).astype(
        np.uint32
    )


def two_units_alike(positions, seed, count):
    words = stream.words(positions, seed, count)
    alike = stream.words(np.zeros_like(positions), seed, count)
    return np.where((positions == 77) & (words % 2 == 0), alike, words)


BAD = [
    (one_round, lambda g: checks.collisions(g, SIZE, 8)),
    (linear_congruential, lambda g: checks.cells(g, SIZE)),
    (linear_congruential, lambda g: checks.serial(g, SIZE, 0.5)),
    (linear_congruential, lambda g: checks.across_axes(g, 8, (128, 256))),
    (a_bit_stuck_now_and_then, lambda g: checks.frequency(g, SIZE)),
    (equal_halves_now_and_then, lambda g: checks.cells(g, SIZE)),
    (equal_halves_now_and_then, lambda g: checks.serial(g, SIZE, 0.1)),
    (shifted, lambda g: checks.spectra(g, SIZE >> 2)),
    (exclusive_or, lambda g: checks.spectra(g, SIZE >> 2)),
    (a_lucky_unit, lambda g: draws.kept_over(g, "seeds", 512, 1024, 0.5)),
    (two_units_alike, lambda g: draws.pairs_over(g, "steps", 512, 512)),
    (symmetric, lambda g: draws.between(g, 256)),
    (seed_of_31_bits, lambda g: draws.between(g, 256)),
    (count_of_16_bits, lambda g: draws.between(g, 256)),
    (deaf_to_replicas, lambda g: draws.between_replicas(g, 1024, 64)),
    (one_round, lambda g: draws.most_alike(g, 4096, 2**16, 64)),
]


@pytest.mark.parametrize(
    ("generator", "test"), BAD, ids=[generator.__name__ for generator, _ in BAD]
)
def test_a_bad_generator_is_rejected(generator, test):
    assert failures(test(generator), FALSE_ALARM)


def test_p_values_of_counts_are_exact():
    n, p = 40, 0.3
    binomial = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
    poisson = [math.exp(-8) * 8**k / math.factorial(k) for k in range(100)]
    for k in (0, 3, 12, 13, 25, 40):
        for masses, result in (
            (binomial, results.binomial("", "", k, n, p)),
            (poisson, results.poisson("", "", k, 8.0)),
        ):
            tails = sum(masses[: k + 1]), sum(masses[k:])
            expected = min(1.0, 2 * min(tails))
            np.testing.assert_allclose(result.p_value, expected, rtol=1e-9)


def test_p_values_of_deviations_are_exact():
    """The normal tail; and for two degrees of freedom chi-square's, exp(-x / 2)."""
    one, _ = results.of_deviations("", "", np.array([1.0]))
    assert one.p_value == pytest.approx(math.erfc(math.sqrt(0.5)), rel=1e-12)
    largest, squares = results.of_deviations("", "", np.array([3.0, -1.0]))
    tail = math.erfc(3 / math.sqrt(2))
    assert largest.p_value == pytest.approx(1 - (1 - tail) ** 2, rel=1e-12)
    assert squares.p_value == pytest.approx(2 * math.exp(-5), rel=1e-12)
