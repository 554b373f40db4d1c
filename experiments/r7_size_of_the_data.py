"""R7: dropout does not help with very few images, and helps with more.

Srivastava et al. (2014), section 7.4, figure 10: 784-1024-1024-2048-10 on N in {100,
500, 1K, 5K, 10K, 50K} images of MNIST. No gain at 100 and 500; the gain then rises
and declines again. Here: 784-512-512-10 and N up to 10,000; 0.5 of the hidden units and
0.2 of the pixels dropped; a learning rate of its own for every N and arm.
"""

from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

from experiments.arm import Arm, Sizes, validation_score
from experiments.experiment import (
    Experiment,
    Finding,
    Number,
    column,
    mean_and_range,
)
from experiments.lab import Lab, Measurement
from experiments.nets import mlp
from experiments.significance import Difference, holm, paired_difference
from experiments.trainer import Plan, Trainer, error_percent

ARMS = {"without": 0.0, "with": 1.0}  # factors of the rates of dropout
ALPHA = 0.05


@dataclass(frozen=True)
class Config(Sizes):
    """The sizes."""

    sizes: tuple[int, ...] = (100, 500, 1_000, 5_000, 10_000)
    headlines: tuple[int, ...] = (5_000, 10_000)
    widths: tuple[int, ...] = (512, 512)
    steps: int = 1_500
    batch_size: int = 100
    tuning_steps: int = 500
    every: int = 500
    rates: tuple[float, ...] = (0.03, 0.1)


QUICK = Config(
    sizes=(100,),
    headlines=(100,),
    widths=(32, 32),
    steps=40,
    tuning_steps=20,
    every=20,
    rates=(0.1,),
    seeds=(1, 2),
)


@cache
def trainer(widths: tuple[int, ...], arm: str) -> Trainer:
    """Return the trainer of the figure's network, with or without dropout."""
    factor = ARMS[arm]
    build = partial(mlp, widths=widths, rate=0.5 * factor, input_rate=0.2 * factor)
    return Trainer(build, keras.optimizers.SGD(0.1, momentum=0.9))


def run(lab: Lab, config: Config) -> dict[str, Any]:
    """Tune and train both arms for every number of images."""
    data = lab.data("mnist")

    def measure(network: Trainer) -> Measurement:
        return {"test_error": error_percent(network, data.test)}

    def measured(arm: str, size: int) -> list[Measurement]:
        def train(plan: Plan) -> Trainer:
            images = data.train.subset(size, plan.seed)
            return trainer(config.widths, arm).train_to_end(images, plan)

        key = {"arm": arm, "size": size}
        one = Arm(lab, config, key, train, validation_score(data))
        return one.with_seeds(measure)

    return {
        "results": [
            {"size": size, **{arm: measured(arm, size) for arm in ARMS}}
            for size in config.sizes
        ]
    }


def analyse(measured: dict[str, Any], config: Config) -> Finding:
    """Find the gain by dropout for every number of images."""
    errors = {
        r["size"]: {arm: column(r[arm], "test_error") for arm in ARMS}
        for r in measured["results"]
    }
    gains = {n: paired_difference(e["without"], e["with"]) for n, e in errors.items()}
    adjusted = holm({str(n): gains[n].p for n in config.headlines})
    shown = [n for n in config.headlines if adjusted[str(n)] < ALPHA]
    return Finding(
        holds=any(gains[n].mean > 0 for n in shown),
        measured="gain in points "
        + ", ".join(f"at {n}: {gain}" for n, gain in gains.items()),
        numbers=[
            Number(f"test error at {n}, {arm} dropout, %", mean_and_range(e[arm]))
            for n, e in errors.items()
            for arm in ARMS
        ]
        + [
            Number(f"p at {n}, by Holm", f"{adjusted[str(n)]:.2g}")
            for n in config.headlines
        ],
        p=min(holm({str(n): gains[n].p_greater for n in config.headlines}).values()),
        remark="That there is no gain with very few images is the paper's, and no part "
        f"of the criterion. Here {_signs(gains)}.",
    )


def _signs(gains: dict[int, Difference]) -> str:
    """Say with how many images dropout helps, and with how many it harms."""
    helps = [f"{n:,}" for n, gain in gains.items() if gain.lower > 0]
    harms = [f"{n:,}" for n, gain in gains.items() if gain.upper < 0]
    return (
        f"the interval lies above 0 at {'; '.join(helps) or 'none'}, and below 0 at "
        f"{'; '.join(harms) or 'none'}"
    )


def plot(measured: dict[str, Any], figure: Figure) -> None:
    """Draw figure 10: the errors over the number of images."""
    axes = figure.subplots()
    sizes = column(measured["results"], "size")
    for arm, style in (("without", "o--"), ("with", "o-")):
        errors = [column(r[arm], "test_error") for r in measured["results"]]
        axes.errorbar(
            sizes,
            np.mean(errors, axis=1),
            np.std(errors, axis=1, ddof=1),
            fmt=style,
            capsize=3,
            label=f"{arm} dropout",
        )
    axes.set(xscale="log", xlabel="training images", ylabel="test error, %")
    axes.legend()


R7 = Experiment(
    name="r7",
    title="Dropout and the size of the data",
    claim="Dropout lowers the error of a network trained on some thousand images.",
    source="Srivastava et al. 2014, section 7.4, figure 10",
    criterion="At 5,000 or at 10,000 images dropout lowers the error: paired t-test, "
    "p < 0.05 after Holm's correction for the two. (What happens at 100 and 500 is "
    "reported, not tested.)",
    full=Config(),
    quick=QUICK,
    run=run,
    analyse=analyse,
    plot=plot,
)
