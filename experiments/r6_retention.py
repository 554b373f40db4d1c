"""R6: the best probability of retaining a unit lies between the extremes.

Srivastava et al. (2014), section 7.3, figure 9a: 784-2048-2048-2048-10, no dropout of
the pixels, the same p for all hidden units; the test error is flat for 0.4 <= p <= 0.8
and rises towards both ends. Here: 784-256-256-256-10 on 5,000 images, with a learning
rate of its own for every p. The paper's p is the fraction retained, so `rate` is 1 - p.
"""

from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

from experiments.arm import Arm, Sizes, validation_score
from experiments.experiment import (
    SEEDS,
    Experiment,
    Finding,
    Number,
    column,
    mean_and_range,
)
from experiments.lab import Lab, Measurement
from experiments.nets import mlp
from experiments.significance import sign_test
from experiments.trainer import Plan, Trainer, error_percent

BEST, ENDS = 0.5, (0.1, 1.0)
EXPLORED = (0.5, 0.8, 1.0)


@dataclass(frozen=True)
class Config(Sizes):
    """The sizes."""

    retained: tuple[float, ...] = (0.1, 0.3, 0.5, 0.8, 1.0)
    subset: int = 5_000
    widths: tuple[int, ...] = (256, 256, 256)
    explored_steps: int = 20_000
    explored_seeds: tuple[int, ...] = SEEDS[:3]
    steps: int = 2_000
    batch_size: int = 100
    tuning_steps: int = 1_000
    every: int = 500
    rates: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)


QUICK = Config(
    retained=(0.1, 0.5, 1.0),
    subset=500,
    widths=(32, 32),
    steps=40,
    explored_steps=60,
    explored_seeds=(1, 2),
    tuning_steps=20,
    every=20,
    rates=(0.1,),
    seeds=(1, 2),
)


@cache
def trainer(widths: tuple[int, ...], retained: float) -> Trainer:
    """Return the trainer of the figure's network."""
    build = partial(mlp, widths=widths, rate=1 - retained)
    return Trainer(build, keras.optimizers.SGD(0.1, momentum=0.9))


def run(lab: Lab, config: Config) -> dict[str, Any]:
    """Tune and train for every p."""
    data = lab.data("mnist")

    def measure(network: Trainer) -> Measurement:
        return {"test_error": error_percent(network, data.test)}

    def measured(p: float) -> dict[str, Any]:
        def train(plan: Plan) -> Trainer:
            images = data.train.subset(config.subset, plan.seed)
            return trainer(config.widths, p).train_to_end(images, plan)

        key = {"retained": p, "subset": config.subset}
        arm = Arm(lab, config, key, train, validation_score(data))
        result: dict[str, Any] = {"retained": p, "rate": arm.rate()}
        result["seeds"] = arm.with_seeds(measure)
        if p in EXPLORED:
            steps, seeds = config.explored_steps, config.explored_seeds
            result["explored"] = arm.with_seeds(measure, steps, seeds)
        return result

    return {"results": [measured(p) for p in config.retained]}


def analyse(measured: dict[str, Any], config: Config) -> Finding:
    """Compare the middle with both ends, seed by seed."""
    errors = {
        r["retained"]: column(r["seeds"], "test_error") for r in measured["results"]
    }
    gains = {end: np.subtract(errors[end], errors[BEST]) for end in ENDS}
    wins = {end: int(np.sum(gain > 0)) for end, gain in gains.items()}
    seeds = len(config.seeds)
    return Finding(
        holds=all(count == seeds for count in wins.values()),
        measured=f"the error at p = {BEST} is lower than "
        + " and ".join(
            f"at p = {end} with {count} of {seeds} seeds" for end, count in wins.items()
        ),
        numbers=[
            Number(
                f"test error, p = {r['retained']} (learning rate {r['rate']}), %",
                mean_and_range(errors[r["retained"]]),
            )
            for r in measured["results"]
        ],
        p=max(sign_test(gain.tolist()) for gain in gains.values()),
        remark="Tried after this result, and no part of the criterion: "
        f"{config.explored_steps:,} steps instead of {config.steps:,}, with "
        f"{len(config.explored_seeds)} seeds. "
        + "; ".join(
            f"p = {result['retained']}: "
            f"{mean_and_range(column(result['explored'], 'test_error'))} %"
            for result in measured["results"]
            if "explored" in result
        )
        + ".",
    )


def plot(measured: dict[str, Any], figure: Figure) -> None:
    """Draw figure 9a: the error over p."""
    axes = figure.subplots()
    p = column(measured["results"], "retained")
    errors = [column(r["seeds"], "test_error") for r in measured["results"]]
    mean = np.mean(errors, axis=1)
    axes.errorbar(p, mean, np.std(errors, axis=1, ddof=1), fmt="o-", capsize=3)
    axes.axvspan(0.4, 0.8, color="C1", alpha=0.15, label="flat in the paper")
    axes.set(xlabel="p, the fraction retained", ylabel="test error, %", yscale="log")
    axes.legend()


R6 = Experiment(
    name="r6",
    title="The probability of retaining a unit",
    claim="The test error is least for probabilities in the middle.",
    source="Srivastava et al. 2014, section 7.3, figure 9a",
    criterion="With every seed the error at p = 0.5 is lower than at p = 0.1 and than "
    "at p = 1.",
    full=Config(),
    quick=QUICK,
    run=run,
    analyse=analyse,
    plot=plot,
)
