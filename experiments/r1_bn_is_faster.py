"""R1: with batch normalization the network of the paper's section 4.1 learns faster.

Ioffe & Szegedy (2015), section 4.1, figure 1a: binary MNIST, three hidden layers of
100 sigmoids, small random Gaussian weights, 50,000 steps of batch 60. The paper gives
neither the learning rate nor the standard deviation, so both are swept. The standard
deviation is the one that is best *without* normalization, since both arms must start
from the same weights. Each arm has its own best rate. Plain gradient descent.

The paper shows the test accuracy during training. Here the test images are used once,
after the last step. The curve is that of validation images.

The first full run found no difference in speed: at the largest standard deviation and
the best rate the network without normalization is as fast. The other standard
deviations were tried then, each arm at its best rate there. They are reported beside
the verdict and do not change it.
"""

from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

from experiments.data import Splits
from experiments.experiment import (
    SEEDS,
    TUNING_SEED,
    Experiment,
    Finding,
    Number,
    column,
    mean_and_range,
)
from experiments.lab import Lab, Measurement
from experiments.nets import mlp
from experiments.significance import paired_difference, sign_test
from experiments.trainer import Plan, Trainer, accuracy, error_percent

ARMS = {"without": False, "with": True}
TARGET = 0.95
LAST_LAYER = "hidden_3"
PERCENTILES = (15, 25, 50, 75, 85)


@dataclass(frozen=True)
class Config:
    """The sizes."""

    steps: int = 50_000
    every: int = 100
    batch_size: int = 60
    tuning_steps: int = 5_000
    stddevs: tuple[float, ...] = (0.03, 0.1, 0.3)
    rates: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0)
    watched_images: int = 2_500  # of validation, for the curves
    unit_images: int = 500  # of these, for the percentiles
    explored_steps: int = 10_000
    seeds: tuple[int, ...] = SEEDS


FULL = Config()
QUICK = Config(
    steps=200,
    every=50,
    tuning_steps=100,
    stddevs=(0.1, 0.3),
    rates=(1.0,),
    explored_steps=100,
    seeds=(1, 2),
)


@cache
def trainer(norm: bool, stddev: float) -> Trainer:
    """Return the trainer of the section's network."""
    build = partial(
        mlp, widths=(100,) * 3, activation="sigmoid", stddev=stddev, norm=norm
    )
    return Trainer(build, keras.optimizers.SGD())


def watch(trainer: Trainer, data: Splits, plan: Plan, config: Config) -> Measurement:
    """Train, and look at the accuracy and at the last hidden layer's inputs."""
    watched = data.validation.first(config.watched_images)
    accuracies, percentiles = [], []
    for _ in trainer.train(data.train, plan):
        logits = trainer.outputs(watched.images)
        accuracies.append(accuracy(logits, watched.labels))
        units = trainer.outputs(watched.images[: config.unit_images], LAST_LAYER)
        percentiles.append(np.percentile(units, PERCENTILES, axis=0))
    over_time = np.array(percentiles)  # (times, percentiles, units)
    return {
        "score": float(np.mean(accuracies)),
        "accuracies": np.round(accuracies, 4).tolist(),
        "drift": drift(over_time),
        "unit": np.round(over_time[:, [0, 2, 4], 0], 3).tolist(),
    }


def drift(percentiles: np.ndarray) -> float:
    """Return how far the inputs of a nonlinearity wander, in widths of their spread.

    The drift of a unit is the standard deviation of its median over the training,
    divided by its mean interquartile range. The result is the mean over the units.

    Args:
        percentiles: Shape (times, PERCENTILES, units).
    """
    wide = percentiles.astype("float64")  # float32 adds one time after another
    lower, medians, upper = (wide[:, PERCENTILES.index(q)] for q in (25, 50, 75))
    return float(np.mean(medians.std(axis=0) / (upper - lower).mean(axis=0)))


def binary_mnist(lab: Lab) -> Splits:
    """Return MNIST in black and white."""
    data = lab.data("mnist")
    return Splits(
        data.train.binarized(), data.validation.binarized(), data.test.binarized()
    )


def tune(lab: Lab, config: Config, arm: str, *stddevs: float) -> dict[str, float]:
    """Return the best standard deviation, of those given, and rate of an arm."""
    data = binary_mnist(lab)

    def score(choice: Any) -> Measurement:
        plan = Plan(
            config.tuning_steps,
            config.batch_size,
            choice["rate"],
            TUNING_SEED,
            every=config.every,
        )
        outcome = watch(trainer(ARMS[arm], choice["stddev"]), data, plan, config)
        return {"score": outcome["score"]}

    choices = [{"stddev": s, "rate": r} for s, r in product(stddevs, config.rates)]
    return lab.tune({"arm": arm, "steps": config.tuning_steps}, choices, score)


def tuned(lab: Lab, config: Config) -> tuple[float, dict[str, float]]:
    """Return the standard deviation that is best without, and each arm's rate there."""
    without = tune(lab, config, "without", *config.stddevs)
    with_norm = tune(lab, config, "with", without["stddev"])
    return without["stddev"], {"without": without["rate"], "with": with_norm["rate"]}


def explore(lab: Lab, config: Config, known: float) -> list[dict[str, Any]]:
    """Return the steps to the target from the other standard deviations."""
    data = binary_mnist(lab)

    def measure(arm: str, stddev: float, rate: float, seed: int) -> Measurement:
        plan = Plan(
            config.explored_steps, config.batch_size, rate, seed, every=config.every
        )
        outcome = watch(trainer(ARMS[arm], stddev), data, plan, config)
        return {"steps_to_target": steps_to_target(outcome["accuracies"], config)}

    def all_seeds(arm: str, stddev: float) -> list[Measurement]:
        rate = tune(lab, config, arm, stddev)["rate"]
        key = {"explored": True, "arm": arm, "stddev": stddev, "rate": rate}
        key["steps"] = config.explored_steps
        return lab.with_seeds(key, config.seeds, partial(measure, arm, stddev, rate))

    return [
        {"stddev": stddev, **{arm: all_seeds(arm, stddev) for arm in ARMS}}
        for stddev in config.stddevs
        if stddev != known
    ]


def run(lab: Lab, config: Config) -> dict[str, Any]:
    """Tune both arms, then train each with every seed."""
    data = binary_mnist(lab)
    stddev, rates = tuned(lab, config)

    def measure(arm: str, seed: int) -> Measurement:
        plan = Plan(
            config.steps, config.batch_size, rates[arm], seed, every=config.every
        )
        network = trainer(ARMS[arm], stddev)
        outcome = watch(network, data, plan, config)
        return {
            **outcome,
            "steps_to_target": steps_to_target(outcome["accuracies"], config),
            "test_error": error_percent(network, data.test),
        }

    def all_seeds(arm: str) -> list[Measurement]:
        key = {"arm": arm, "steps": config.steps, "stddev": stddev, "rate": rates[arm]}
        return lab.with_seeds(key, config.seeds, partial(measure, arm))

    arms = {arm: all_seeds(arm) for arm in ARMS}
    return {"stddev": stddev, "rates": rates, "every": config.every, **arms}


def run_and_explore(lab: Lab, config: Config) -> dict[str, Any]:
    """Make the runs, which R2 uses too, and the exploration."""
    measured = run(lab, config)
    return {**measured, "explored": explore(lab, config, measured["stddev"])}


def steps_to_target(accuracies: list[float], config: Config) -> int:
    """Return the first step that was seen at the target; the last step if none was."""
    reached = (i for i, value in enumerate(accuracies, start=1) if value >= TARGET)
    return next(reached, len(accuracies)) * config.every


def analyse(measured: dict[str, Any], config: Config) -> Finding:
    """Compare the steps to the target, and the errors at the end."""
    steps = {arm: column(measured[arm], "steps_to_target") for arm in ARMS}
    errors = {arm: column(measured[arm], "test_error") for arm in ARMS}
    ratios = [w / wo for w, wo in zip(steps["with"], steps["without"], strict=True)]
    ratio = float(np.median(ratios))
    faster = sum(r < 1 for r in ratios)
    end = paired_difference(errors["with"], errors["without"])
    return Finding(
        holds=ratio <= 0.5 and faster == len(ratios) and end.mean <= 0.1,
        measured=f"ratio of steps {ratio:.2f}, faster with {faster} of {len(ratios)} "
        f"seeds; error at the end {end} points",
        numbers=[
            *(
                Number(f"steps to 95 %, {arm} BN", mean_and_range(steps[arm], 0))
                for arm in ARMS
            ),
            *(
                Number(
                    f"test error at the end, {arm} BN, %", mean_and_range(errors[arm])
                )
                for arm in ARMS
            ),
            Number(
                "standard deviation of the initial weights", f"{measured['stddev']}"
            ),
            *(
                Number(f"learning rate, {arm} BN", f"{measured['rates'][arm]}")
                for arm in ARMS
            ),
        ],
        p=sign_test([1 - r for r in ratios]),
        remark=_explored(measured["explored"]),
    )


def _explored(results: list[dict[str, Any]]) -> str:
    """Describe the exploration."""
    lines = []
    for result in results:
        steps = {arm: column(result[arm], "steps_to_target") for arm in ARMS}
        ratio = np.median(np.divide(steps["with"], steps["without"]))
        lines.append(
            f"{result['stddev']}: {mean_and_range(steps['with'], 0)} steps with, "
            f"{mean_and_range(steps['without'], 0)} without, median ratio {ratio:.2f}"
        )
    return (
        "Tried after this result, and no part of the criterion: steps to 95 % from "
        "the other standard deviations of the initial weights, each arm at the rate "
        "that is best for it there. " + "; ".join(lines) + "."
    )


def plot(measured: dict[str, Any], figure: Figure) -> None:
    """Draw figure 1a: accuracy over the steps."""
    axes = figure.subplots()
    for arm, style in (("without", "--"), ("with", "-")):
        curves = np.array(column(measured[arm], "accuracies"))
        steps = measured["every"] * np.arange(1, curves.shape[1] + 1)
        axes.plot(steps, curves.mean(axis=0), style, label=f"{arm} BN")
        axes.fill_between(steps, curves.min(axis=0), curves.max(axis=0), alpha=0.2)
    axes.axhline(TARGET, color="grey", linewidth=0.5)
    axes.set(ylim=(0.7, 1), xlabel="steps", ylabel="validation accuracy", xscale="log")
    axes.legend(loc="lower right")


R1 = Experiment(
    name="r1",
    title="Batch normalization learns faster",
    claim="A network with batch normalization trains faster.",
    source="Ioffe & Szegedy 2015, section 4.1, figure 1a",
    criterion="The median over the seeds of (steps to 95 % with) / (steps without) is "
    "at most 0.5, every seed is faster, and the test error at the end is at most 0.1 "
    "points worse.",
    full=FULL,
    quick=QUICK,
    run=run_and_explore,
    analyse=analyse,
    plot=plot,
)
