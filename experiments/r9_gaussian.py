"""R9: multiplicative Gaussian noise does as well as Bernoulli's.

Srivastava et al. (2014), section 10, table 10: MNIST error 1.08 ± 0.04 % with dropout
and 0.95 ± 0.04 % with noise from N(1, (1 − p)/p), which has the same mean and variance.
The Bernoulli arm is R5's dropout with max-norm. The Gaussian arm is the same network
with `KGaussianDropout`, tuned in the same way.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import kerasnorm
from experiments import r5_max_norm_and_dropout as r5
from experiments.experiment import Experiment, Finding, Number, column, mean_and_range
from experiments.lab import Lab
from experiments.significance import paired_difference

MARGIN = 0.2  # points
PAPER = {"Bernoulli": "1.08 ± 0.04", "Gaussian": "0.95 ± 0.04"}


def run(lab: Lab, config: r5.Config) -> dict[str, Any]:
    """Train the Gaussian arm; take the other from R5."""
    noise = kerasnorm.KGaussianDropout
    gaussian = [r5.trained(lab, r5.BEST, s, config, noise) for s in config.seeds]
    bernoulli = lab.of("r5", asdict(config))
    return {
        "Bernoulli": [r5.trained(bernoulli, r5.BEST, s, config) for s in config.seeds],
        "Gaussian": gaussian,
    }


def analyse(measured: dict[str, Any], config: r5.Config) -> Finding:
    """Find how much worse the Gaussian arm may be."""
    errors = {arm: column(measured[arm], "test_error") for arm in PAPER}
    worse = paired_difference(errors["Gaussian"], errors["Bernoulli"])
    return Finding(
        holds=worse.upper < MARGIN,
        measured=f"Gaussian minus Bernoulli: {worse} points",
        numbers=[
            Number(f"test error, {arm}, %", mean_and_range(errors[arm]), paper)
            for arm, paper in PAPER.items()
        ],
    )


def plot(measured: dict[str, Any], figure: Figure) -> None:
    """Draw the errors, seed by seed."""
    axes = figure.subplots()
    pairs = np.array([column(measured[arm], "test_error") for arm in PAPER])
    axes.plot([0, 1], pairs, "o-", color="C0", alpha=0.6)
    axes.plot([0, 1], pairs.mean(axis=1), "k_", markersize=30)
    axes.plot([0, 1], [1.08, 0.95], "C1x", label="paper, 60,000 images")
    axes.set_xticks([0, 1], list(PAPER))
    axes.set(ylabel="test error, %", xlim=(-0.5, 1.5), ylim=(0, None))
    axes.legend()


R9 = Experiment(
    name="r9",
    title="Gaussian noise",
    claim="Multiplicative Gaussian noise works as well as Bernoulli dropout.",
    source="Srivastava et al. 2014, section 10, table 10",
    criterion="The interval of (error with Gaussian minus error with Bernoulli noise) "
    f"lies below {MARGIN} points.",
    full=r5.FULL,
    quick=r5.QUICK,
    run=run,
    analyse=analyse,
    plot=plot,
)
