"""The statistical tests of the mask generator, recorded in `docs/masks.md`.

python -m experiments.masks.battery [--output docs/masks.json]
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt

from experiments.masks import checks, draws, stream
from experiments.masks.results import Result

FALSE_ALARM = 1e-3
"""The probability that a perfect generator fails any test of the run (Bonferroni)."""

SIZE = 2**24
"""Words of one test."""


def battery(generate: checks.Generator, size: int) -> Iterator[Result]:
    """Every test, of about `size` words each; a power of two, 2**18 at least."""
    yield from checks.frequency(generate, size)
    for rate in (0.5, 0.1):
        yield from checks.serial(generate, size, rate)
    yield from checks.across_axes(generate, size >> 15, (128, 256))
    yield from checks.across_axes(generate, size >> 18, (8, 16, 16, 64))
    yield from checks.spectra(generate, size >> 2)
    yield from checks.cells(generate, size)
    yield from checks.collisions(generate, size, 8)
    for kind in draws.KINDS:
        for rate in (0.5, 0.1):
            yield from draws.kept_over(generate, kind, size >> 9, 1024, rate)
        yield from draws.pairs_over(generate, kind, size >> 9, 512)
    yield from draws.between(generate, size >> 10)
    yield from draws.between_replicas(generate, size >> 8, 64)
    yield from draws.most_alike(generate, size >> 6, 2**20, 64)


def failures(results: list[Result], false_alarm: float) -> list[Result]:
    """The results that a perfect generator would show with that probability at most."""
    return [r for r in results if r.p_value < false_alarm / len(results)]


def table(results: list[Result]) -> str:
    """A Markdown table."""
    lines = ["| test | sample | statistic | value | expected | p-value |"]
    lines.append("|---|---|---|---:|---:|---:|")
    for r in results:
        value, expected = (
            f"{v:,.0f}" if v >= 1e5 else f"{v:,.5g}" for v in (r.value, r.expected)
        )
        numbers = f"{value} | {expected} | {r.p_value:.4g}"
        lines.append(f"| {r.test} | {r.sample} | {r.statistic} | {numbers} |")
    return "\n".join(lines)


def figure(results: list[Result], path: Path) -> None:
    """Plot the p-values in order against those of a perfect generator."""
    values = sorted(result.p_value for result in results)
    quantiles = [(i + 0.5) / len(values) for i in range(len(values))]
    fig, axes = plt.subplots(figsize=(4.5, 4.5), layout="constrained")
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    axes.plot(quantiles, values, ".", markersize=4)
    axes.set(
        xlabel="expected of a perfect generator",
        ylabel="p-value",
        title=f"The {len(values)} p-values in order",
        aspect="equal",
    )
    fig.savefig(path, dpi=120)
    plt.close(fig)


def main() -> None:
    """Run the battery, print the table, fail if a test does."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    parser.add_argument("--figure", type=Path, help="plot the p-values")
    options = parser.parse_args()
    start = time.perf_counter()
    results = list(battery(stream.words, SIZE))
    failed = failures(results, FALSE_ALARM)
    print(table(results))
    print(
        f"\n{len(results)} p-values, smallest {min(r.p_value for r in results):.3g}, "
        f"bound {FALSE_ALARM / len(results):.3g}, {len(failed)} below it, "
        f"{time.perf_counter() - start:.0f} s"
    )
    if options.output:
        record = {
            "seed": stream.SEED,
            "words": SIZE,
            "false_alarm_probability": FALSE_ALARM,
            "p_value_bound": FALSE_ALARM / len(results),
            "failed": [r.test for r in failed],
            "results": [r._asdict() for r in results],
        }
        options.output.write_text(json.dumps(record, indent=1) + "\n")
    if options.figure:
        figure(results, options.figure)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
