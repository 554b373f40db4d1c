"""R1 as the paper had it: small initial weights, and one rate for both arms.

Ioffe & Szegedy (2015), section 4.1, figure 1a: "W initialized to small random Gaussian
values", 50,000 steps of batch 60; batch normalization "helps the network train faster
and achieve higher accuracy". Our first run chose the standard deviation that is best
*without* normalization, 0.3, the largest of those tried, and the best rate of each arm.
Here the weights are small (0.01), and both arms have the same rate.

The paper gives neither number. From 0.01 pilots tried the rates 0.1 and 1. Only at 1
does the network without normalization learn, as the paper's does; 0.1 would be the
easier bar. 20,000 steps are enough for that, and 50,000 too many for ten seeds.

Pilots known when the criterion was written (one seed, three for the first; steps to
95 %, and test error after 50,000): from 0.01 at rate 0.1 never, 6.3 % without and
4,100, 2.7 % with; from 0.01 at 1: 7,600, 4.2 % and 2,700, 3.1 %; from 0.1 at 0.1:
11,700, 3.1 % and 6,300, 2.9 %; from 0.3 at 0.1: 10,400, 4.6 % and 14,200, 4.4 %.

A network that does not come to 95 % is censored at its last step, not counted as one
that has. The map over standard deviations and rates is of one seed and not judged.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import r1_bn_is_faster as r1
from experiments.experiment import (
    PAPER_SEEDS,
    Experiment,
    Finding,
    Number,
    column,
    mean_and_range,
)
from experiments.lab import Lab, Measurement
from experiments.significance import log_rank, paired_difference
from experiments.trainer import Plan, accuracy, error_percent

SHOWN = [r1.PERCENTILES.index(q) for q in (15, 50, 85)]


@dataclass(frozen=True)
class Config:
    """The sizes."""

    steps: int = 20_000
    every: int = 250
    batch_size: int = 60
    stddev: float = 0.01
    rate: float = 1.0
    watched_images: int = 2_500  # of validation, for the curves
    unit_images: int = 500  # of these, for the percentiles
    map_stddevs: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)
    map_rates: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)
    map_steps: int = 5_000
    map_seed: int = 21
    seeds: tuple[int, ...] = PAPER_SEEDS


FULL = Config()
QUICK = Config(
    steps=100,
    every=50,
    map_stddevs=(0.01,),
    map_rates=(1.0,),
    map_steps=100,
    seeds=(1, 2),
)


def run(lab: Lab, config: Config) -> dict[str, Any]:
    """Train both arms with every seed."""
    data = r1.binary_mnist(lab)
    watched = data.validation.first(config.watched_images)
    key = {"stddev": config.stddev, "rate": config.rate, "steps": config.steps}

    def measure(arm: str, seed: int) -> Measurement:
        network = r1.trainer(r1.ARMS[arm], config.stddev)
        plan = Plan(
            config.steps, config.batch_size, config.rate, seed, every=config.every
        )
        accuracies, percentiles = [], []
        for _ in network.train(data.train, plan):
            logits = network.outputs(watched.images)
            accuracies.append(round(accuracy(logits, watched.labels), 4))
            images = watched.images[: config.unit_images]
            inputs = network.outputs(images, r1.LAST_LAYER)
            percentiles.append(np.percentile(inputs, r1.PERCENTILES, axis=0))
        over_time = np.array(percentiles, "float64")  # (times, percentiles, units)
        wanderings = wandering(over_time)
        typical = np.argsort(wanderings)[len(wanderings) // 2]
        return {
            "steps_to_target": steps_to_target(accuracies, config.every),
            "test_error": error_percent(network, data.test),
            "wandering": float(np.mean(wanderings)),
            "drift": r1.drift(over_time),
            "accuracies": accuracies,
            "unit": np.round(over_time[:, SHOWN, typical], 3).tolist(),
        }

    arms: dict[str, list[Measurement]] = {arm: [] for arm in r1.ARMS}
    for seed in config.seeds:
        for arm, measured in arms.items():
            measured += lab.with_seeds(
                {"arm": arm, **key}, [seed], partial(measure, arm)
            )
    return arms


def run_and_map(lab: Lab, config: Config) -> dict[str, Any]:
    """Make the runs, which R2 uses too, and the map."""
    arms = run(lab, config)
    data = r1.binary_mnist(lab)
    watched = data.validation.first(config.watched_images)

    def mean_accuracy(arm: str, stddev: float, rate: float) -> Measurement:
        network = r1.trainer(r1.ARMS[arm], stddev)
        plan = Plan(
            config.map_steps,
            config.batch_size,
            rate,
            config.map_seed,
            every=config.every,
        )
        accuracies = [
            accuracy(network.outputs(watched.images), watched.labels)
            for _ in network.train(data.train, plan)
        ]
        return {"mean_accuracy": float(np.mean(accuracies))}

    def cell(arm: str, stddev: float, rate: float) -> float:
        key = {"map": True, "arm": arm, "stddev": stddev, "rate": rate}
        key |= {"steps": config.map_steps, "seed": config.map_seed}
        measured = lab.once(key, lambda: mean_accuracy(arm, stddev, rate))
        return measured["mean_accuracy"]

    cells = {
        arm: [
            [cell(arm, stddev, rate) for rate in config.map_rates]
            for stddev in config.map_stddevs
        ]
        for arm in r1.ARMS
    }
    return {**arms, "map": cells}


def wandering(percentiles: np.ndarray) -> np.ndarray:
    """Return how far the inputs of each unit wander, in the sigmoid's own units.

    That is the standard deviation of a percentile over the training, the mean of the
    15th, the 50th and the 85th.

    Args:
        percentiles: Shape (times, r1.PERCENTILES, units).
    """
    return percentiles[:, SHOWN].std(axis=0).mean(axis=0)


def steps_to_target(accuracies: list[float], every: int) -> int | None:
    """Return the first step that was seen at the target, `None` if none was."""
    reached = (i for i, value in enumerate(accuracies, 1) if value >= r1.TARGET)
    return next((i * every for i in reached), None)


def analyse(measured: dict[str, Any], config: Config) -> Finding:
    """Compare the steps to the target, and the errors at the end."""
    steps = {arm: column(measured[arm], "steps_to_target") for arm in r1.ARMS}
    errors = {arm: column(measured[arm], "test_error") for arm in r1.ARMS}
    p = log_rank(steps["with"], steps["without"], config.steps)
    medians = {
        arm: float(np.median([np.inf if s is None else s for s in values]))
        for arm, values in steps.items()
    }
    gain = paired_difference(errors["without"], errors["with"])
    twice = 2 * medians["with"] <= medians["without"]
    return Finding(
        holds=p < 0.05 and twice and medians["with"] < np.inf and gain.lower > 0,
        measured=f"median of the steps {_steps(medians['with'])} with, "
        f"{_steps(medians['without'])} without (log-rank p {p:.2g}); error at the end "
        f"without minus with: {gain} points",
        numbers=[
            *(
                Number(f"steps to 95 %, {arm} BN", _times(steps[arm]))
                for arm in r1.ARMS
            ),
            *(
                Number(
                    f"test error at the end, {arm} BN, %", mean_and_range(errors[arm])
                )
                for arm in r1.ARMS
            ),
        ],
        p=p,
        remark="The map (right) is of one seed and no part of the criterion: the mean "
        f"accuracy over the first {config.map_steps:,} steps from "
        f"{_range(measured['map']['without'])} % without and from "
        f"{_range(measured['map']['with'])} % with, over "
        f"{len(config.map_stddevs) * len(config.map_rates)} standard deviations and "
        "rates.",
    )


def _steps(value: float) -> str:
    return "never" if np.isinf(value) else f"{value:,.0f}"


def _times(steps: list[int | None]) -> str:
    reached = [value for value in steps if value is not None]
    if not reached:
        return f"not reached with {len(steps)} seeds"
    text = mean_and_range(reached, 0)
    missed = len(steps) - len(reached)
    return text + (f"; not reached with {missed} seeds" if missed else "")


def _range(cells: list[list[float]]) -> str:
    return f"{100 * np.min(cells):.0f} to {100 * np.max(cells):.0f}"


def plot(measured: dict[str, Any], figure: Figure) -> None:
    """Draw figure 1a, and the maps."""
    curve, *maps = figure.subplots(1, 3, width_ratios=(2, 1, 1))
    for arm, style in (("without", "--"), ("with", "-")):
        curves = np.array(column(measured[arm], "accuracies"))
        steps = FULL.every * np.arange(1, curves.shape[1] + 1)
        curve.plot(steps, curves.mean(axis=0), style, label=f"{arm} BN")
        curve.fill_between(steps, curves.min(axis=0), curves.max(axis=0), alpha=0.2)
    curve.axhline(r1.TARGET, color="grey", linewidth=0.5)
    curve.set(ylim=(0.7, 1), xlabel="steps", ylabel="validation accuracy")
    curve.set(xscale="log")
    curve.legend(loc="lower right")
    for axes, arm in zip(maps, r1.ARMS, strict=True):
        cells = 100 * np.array(measured["map"][arm])
        axes.imshow(cells, vmin=10, vmax=100, cmap="viridis", origin="lower")
        for (row, col), value in np.ndenumerate(cells):
            color = "white" if value < 60 else "black"
            axes.text(col, row, f"{value:.0f}", ha="center", va="center", color=color)
        axes.set_xticks(range(cells.shape[1]), FULL.map_rates[: cells.shape[1]])
        axes.set_yticks(range(cells.shape[0]), FULL.map_stddevs[: cells.shape[0]])
        axes.set(title=f"{arm} BN", xlabel="learning rate")
    maps[0].set_ylabel("standard deviation of the weights")


R1_PAPER = Experiment(
    name="r1-paper",
    title="Batch normalization learns faster, from small weights",
    claim=r1.R1.claim,
    source=r1.R1.source,
    criterion="The steps to 95 % are fewer with batch normalization by the log-rank "
    "test (one-sided, p < 0.05; networks that do not come to 95 % are censored), their "
    "median is at most half that without, and the interval of (test error without "
    "minus test error with) after the last step lies above 0.",
    full=FULL,
    quick=QUICK,
    run=run_and_map,
    analyse=analyse,
    plot=plot,
)
