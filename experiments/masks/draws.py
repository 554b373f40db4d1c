"""Statistical tests of the masks of different steps, seeds, layers and replicas.

The conventions are those of `checks`.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.masks.checks import Generator, keep, keep_fraction, signs
from experiments.masks.results import Result, of_deviations
from experiments.masks.stream import SEED, Words, keys, replica_seed, span

Key = tuple[Words, Words]

KINDS = ("steps", "seeds", "replicas")


def keys_over(kind: str, draws: int) -> Key:
    """Return seeds and counts, as columns, of which only `kind` varies."""
    index = span(0, draws)[:, None]
    fixed = np.full_like(index, SEED)
    if kind == "steps":
        return fixed, index
    if kind == "seeds":
        return index, np.zeros_like(index)
    return replica_seed(fixed, index), np.zeros_like(index)


def kept_over(
    generate: Generator, kind: str, draws: int, units: int, rate: float
) -> list[Result]:
    """Count the units kept of each feature over many draws, and in each draw."""
    mask = keep(generate(span(0, units // 2), *keys_over(kind, draws)), rate)
    p = keep_fraction(rate)
    sample = f"{draws:,} draws of {units:,} units"
    results = []
    for what, axis in (("feature", 0), ("draw", 1)):
        n = mask.shape[axis]
        kept = np.count_nonzero(mask, axis=axis)
        z = (kept - n * p) / math.sqrt(n * p * (1 - p))
        name = f"kept per {what} over {kind}, rate {rate:g}"
        results += of_deviations(name, sample, z)
    return results


def pairs_over(generate: Generator, kind: str, draws: int, units: int) -> list[Result]:
    """Correlate any two features of a layer over many draws."""
    words = generate(span(0, units // 2), *keys_over(kind, draws))
    mask = signs(words).astype(np.float32)  # sums to 2**24 are exact
    z = (mask.T @ mask)[np.triu_indices(units, 1)] / np.float64(math.sqrt(draws))
    name, sample = f"any two features over {kind}", f"{draws:,} draws, {units} units"
    return of_deviations(name, sample, z)


def relations(seed: Words, count: Words) -> dict[str, list[Key]]:
    """Return draws that training or a choice of seeds may put beside (seed, count)."""
    bits = 1 << span(0, 32)
    small = span(1, 32)
    replicas = [replica_seed(seed, replica) for replica in span(0, 8)[:, None]]
    return {
        "(s, c+k)": [(seed, count + k) for k in small],
        "(s+k, c)": [(seed + k, count) for k in small],
        "(s, c^bit)": [(seed, count ^ bit) for bit in bits],
        "(s^bit, c)": [(seed ^ bit, count) for bit in bits],
        "(s^bit, c^bit)": [(seed ^ bit, count ^ bit) for bit in bits],
        "(c, s)": [(count, seed)],
        "(s+1, c-1)": [(seed + np.uint32(1), count - np.uint32(1))],
        "complements": [(~seed, count), (seed, ~count), (~seed, ~count)],
        "(s + key constant, c)": [
            (seed + np.uint32(0x9E3779B9), count),
            (seed ^ np.uint32(0x85EBCA6B), count),
        ],
        "(replica r's seed, c)": [(replica, count) for replica in replicas],
        "(replica r's seed, c+1)": [
            (replica, count + np.uint32(1)) for replica in replicas
        ],
    }


def between(generate: Generator, size: int) -> list[Result]:
    """Count the bits that related draws share with 16 seeds s times 16 counts c."""
    # All have an even number of ones. So flipping a bit gives none of the others, and
    # no pair comes twice.
    even = np.array([n for n in range(32) if n.bit_count() % 2 == 0], np.uint32)
    seed, count = (g.reshape(-1, 1) for g in np.meshgrid(even, even + np.uint32(32)))
    words = generate(span(0, size), seed, count)
    results = []
    for name, related in relations(seed, count).items():
        others = (generate(span(0, size), *key) for key in related)
        z = np.concatenate([agreement(words, other) for other in others])
        sample = f"{z.size:,} pairs of {size:,} words"
        results += of_deviations(f"(s, c) with {name}", sample, z)
    return results


def between_replicas(generate: Generator, size: int, replicas: int) -> list[Result]:
    """Count the bits that any two replicas share at one step."""
    draws = generate(span(0, size), *keys_over("replicas", replicas))
    first, second = np.triu_indices(replicas, 1)
    z = agreement(draws[first], draws[second])
    sample = f"{z.size:,} pairs of {size:,} words"
    return of_deviations("any two replicas", sample, z)


def most_alike(generate: Generator, size: int, steps: int, pairs: int) -> list[Result]:
    """Compare the worst steps of a long run: those with the smallest key ^ key'.

    Their words at i and i ^ (key ^ key') share all but the last round.
    """
    key, _ = keys(span(SEED, 1), span(0, steps))
    order = np.argsort(key).astype(np.uint32)
    apart = key[order[1:]] ^ key[order[:-1]]
    nearest = np.argsort(apart)[:pairs]
    seed = np.full((pairs, 1), SEED, np.uint32)
    positions = span(0, size)
    one = generate(positions, seed, order[nearest][:, None])
    two = generate(
        positions ^ apart[nearest][:, None], seed, order[nearest + 1][:, None]
    )
    sample = f"{pairs} pairs of {steps:,} steps, {size:,} words"
    return of_deviations("the most alike steps, aligned", sample, agreement(one, two))


def agreement(one: Words, two: Words) -> NDArray[Any]:
    """Return the equal bits of draws, less the expected half, in standard errors."""
    differ = np.bitwise_count(one ^ two).sum(axis=-1, dtype=np.int64)
    bits = 32 * one.shape[-1]
    return (bits / 2 - differ) / math.sqrt(bits / 4)
