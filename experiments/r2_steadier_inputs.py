"""R2: with batch normalization the inputs of a sigmoid wander less.

Ioffe & Szegedy (2015), section 4.1, figures 1b and 1c: the {15, 50, 85} percentiles of
the inputs to one typical sigmoid of the last hidden layer. Here all 100 of them count;
the runs are those of R1. Santurkar et al. (2018) have shown since that steadier inputs
are not the reason why batch normalization helps.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import r1_bn_is_faster as r1
from experiments.experiment import Experiment, Finding, Number, column, mean_and_range
from experiments.lab import Lab
from experiments.significance import sign_test


def run(lab: Lab, config: r1.Config) -> dict[str, Any]:
    """Take R1's runs."""
    return r1.run(lab.of("r1", asdict(config)), config)


def analyse(measured: dict[str, Any], config: r1.Config) -> Finding:
    """Compare the drift of both arms, seed by seed."""
    drifts = {arm: column(measured[arm], "drift") for arm in r1.ARMS}
    less = np.subtract(drifts["without"], drifts["with"]).tolist()
    lower = sum(value > 0 for value in less)
    return Finding(
        holds=lower == len(less),
        measured=f"drift {np.mean(drifts['with']):.2f} with, "
        f"{np.mean(drifts['without']):.2f} without; lower with {lower} of {len(less)} "
        "seeds",
        numbers=[
            Number(
                f"drift, {arm} BN, in interquartile ranges", mean_and_range(drifts[arm])
            )
            for arm in r1.ARMS
        ],
        p=sign_test(less),
        remark="The picture shows one unit, the first, which need not be typical. "
        "Drift counts in widths of the distribution, and with normalization that is "
        "wider.",
    )


def plot(measured: dict[str, Any], figure: Figure) -> None:
    """Draw figures 1b and 1c: percentiles of one unit's inputs over the steps."""
    panels = figure.subplots(1, 2, sharey=True)
    for axes, arm in zip(panels, r1.ARMS, strict=True):
        unit = np.array(measured[arm][0]["unit"])
        steps = measured["every"] * np.arange(1, len(unit) + 1)
        axes.plot(steps, unit, linewidth=0.8, label=["15 %", "50 %", "85 %"])
        axes.set(title=f"{arm} BN", xlabel="steps", ylabel="input of the first unit")
        axes.legend(loc="lower right")


R2 = Experiment(
    name="r2",
    title="Steadier inputs",
    claim="Batch normalization makes the distribution of a nonlinearity's inputs more "
    "stable as training progresses.",
    source="Ioffe & Szegedy 2015, section 4.1, figures 1b and 1c",
    criterion="Drift (standard deviation over time of a unit's median, divided by its "
    "mean interquartile range; mean over the units of the last hidden layer) is lower "
    "with every seed.",
    full=r1.FULL,
    quick=r1.QUICK,
    run=run,
    analyse=analyse,
    plot=plot,
)
