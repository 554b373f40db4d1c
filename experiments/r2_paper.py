"""R2 as the paper had it: how far the inputs wander in the sigmoid's own units.

Ioffe & Szegedy (2015), section 4.1, figures 1b and 1c show the {15, 50, 85} percentiles
of the inputs to a sigmoid, in the units in which the sigmoid takes them. Our first
criterion divides the drift by the width of the distribution, and with normalization the
distribution is wider; so it could hold without a steadier input. Here nothing is
divided, all three percentiles count, and the networks are those of R1 as the paper had
it. It was known from the picture of R2 that its unit is less steady with normalization;
no pilot measured this wandering.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import r1_bn_is_faster as r1
from experiments import r1_paper
from experiments.experiment import Experiment, Finding, Number, column, mean_and_range
from experiments.lab import Lab
from experiments.r2_steadier_inputs import R2
from experiments.significance import sign_test


def run(lab: Lab, config: r1_paper.Config) -> dict[str, Any]:
    """Take the runs of R1 as the paper had it."""
    return r1_paper.run(lab.of("r1-paper", asdict(config)), config)


def analyse(measured: dict[str, Any], config: r1_paper.Config) -> Finding:
    """Compare the wandering of both arms, seed by seed."""
    values = {arm: column(measured[arm], "wandering") for arm in r1.ARMS}
    less = np.subtract(values["without"], values["with"]).tolist()
    lower = sum(value > 0 for value in less)
    return Finding(
        holds=lower == len(less),
        measured=f"the inputs wander by {np.mean(values['with']):.2f} with, "
        f"{np.mean(values['without']):.2f} without; less with {lower} of {len(less)} "
        "seeds",
        numbers=[
            *(
                Number(f"wandering of the percentiles, {arm} BN", mean_and_range(v))
                for arm, v in values.items()
            ),
            *(
                Number(
                    f"for comparison: drift in interquartile ranges, {arm} BN",
                    mean_and_range(column(measured[arm], "drift")),
                )
                for arm in r1.ARMS
            ),
        ],
        p=sign_test(less),
        remark="The picture shows the unit of the first seed whose wandering is the "
        "median of its layer.",
    )


def plot(measured: dict[str, Any], figure: Figure) -> None:
    """Draw figures 1b and 1c: percentiles of a typical unit's inputs."""
    panels = figure.subplots(1, 2, sharey=True)
    for axes, arm in zip(panels, r1.ARMS, strict=True):
        unit = np.array(measured[arm][0]["unit"])
        steps = r1_paper.FULL.every * np.arange(1, len(unit) + 1)
        axes.plot(steps, unit, linewidth=0.8, label=["15 %", "50 %", "85 %"])
        axes.set(title=f"{arm} BN", xlabel="steps", ylabel="input of a typical unit")
        axes.legend(loc="lower right")


R2_PAPER = Experiment(
    name="r2-paper",
    title="Steadier inputs, in the sigmoid's units",
    claim=R2.claim,
    source=R2.source,
    criterion="Wandering (standard deviation over the training of the 15th, the 50th "
    "and the 85th percentile of a unit's inputs, not divided by anything; mean over "
    "the percentiles and the units of the last hidden layer) is less with every seed.",
    full=r1_paper.FULL,
    quick=r1_paper.QUICK,
    run=run,
    analyse=analyse,
    plot=plot,
)
