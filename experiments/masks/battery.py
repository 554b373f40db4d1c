"""All statistical tests of the mask generator, and what they found as a picture."""

from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

from experiments.masks import checks, draws
from experiments.masks.results import Result


def battery(generate: checks.Generator, size: int) -> Iterator[Result]:
    """Run every test on about `size` words, a power of two of at least 2**18."""
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
    """Return the results whose p-value is below the bound (Bonferroni's).

    Args:
        results: All results of a run.
        false_alarm: The probability that a perfect generator fails any of them.
    """
    return [r for r in results if r.p_value < false_alarm / len(results)]


def table(results: list[Result]) -> str:
    """Return the results as a Markdown table."""
    lines = ["| test | sample | statistic | value | expected | p-value |"]
    lines.append("|---|---|---|---:|---:|---:|")
    for r in results:
        value, expected = (
            f"{v:,.0f}" if v >= 1e5 else f"{v:,.5g}" for v in (r.value, r.expected)
        )
        numbers = f"{value} | {expected} | {r.p_value:.4g}"
        lines.append(f"| {r.test} | {r.sample} | {r.statistic} | {numbers} |")
    return "\n".join(lines)


def draw(results: list[Result], path: Path) -> None:
    """Plot the p-values in order against those of a perfect generator."""
    values = sorted(result.p_value for result in results)
    quantiles = [(i + 0.5) / len(values) for i in range(len(values))]
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    axes.plot(quantiles, values, ".", markersize=4)
    axes.set(
        xlabel="expected of a perfect generator",
        ylabel="p-value",
        title=f"The {len(values)} p-values in order",
        aspect="equal",
    )
    figure.savefig(path, dpi=120)
