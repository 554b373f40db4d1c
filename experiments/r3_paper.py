"""R3 as the paper had it: how much higher a rate a network bears with normalization.

Ioffe & Szegedy (2015), sections 3.3 and 4.2.1: five times the rate made Inception's
parameters infinite, and with normalization five and thirty times it trained. Our first
criterion asks for 30 times the best rate without, which is near the largest usable one:
at that rate both arms are at chance, and what is between 5 and 30 does not count. Here
the largest usable rates are measured, on a grid of factors of 2, and their ratio is
judged. A rate is usable if the network comes to 90 % of the test images right within
3,000 steps, which the sigmoids have been seen to need at small rates. Both arms start
from the same weights.

Two networks: R1's, three layers of 100 sigmoids (standard deviation 0.1), and five
layers of 100 rectified linear units (He's initial weights). A small CNN, which was
thought of too, is left out for its time. Pilot known when the criterion was written, of
the second network, one seed, accuracy at rates 0.1, 0.3, 1, 3, 10: 96.0, 95.7, 11.1 and
twice no number without; 96.3, 96.8, 96.9, 95.9, 10.1 with. The sigmoids are known from
R1 and R3: best rate 3 in both arms, useless without at 15, useful with at 30.
"""

from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import keras
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
from experiments.nets import mlp
from experiments.r3_high_rates import R3
from experiments.significance import sign_test
from experiments.trainer import Plan, Trainer, accuracy_on

NETWORKS: dict[str, dict[str, Any]] = {
    "sigmoid": {"widths": (100,) * 3, "activation": "sigmoid", "stddev": 0.1},
    "relu": {"widths": (100,) * 5},
}
USABLE = 90.0
RATIO = 4


@dataclass(frozen=True)
class Config:
    """The sizes."""

    steps: int = 3_000
    batch_size: int = 60
    sigmoid_rates: tuple[float, ...] = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
    relu_rates: tuple[float, ...] = (0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
    seeds: tuple[int, ...] = PAPER_SEEDS

    def rates(self, network: str) -> tuple[float, ...]:
        """Return the grid of a network."""
        return self.sigmoid_rates if network == "sigmoid" else self.relu_rates


@cache
def trainer(network: str, norm: bool) -> Trainer:
    """Return the trainer of a network, with or without normalization."""
    build = partial(mlp, norm=norm, **NETWORKS[network])
    return Trainer(build, keras.optimizers.SGD())


def run(lab: Lab, config: Config) -> dict[str, Any]:
    """Train both arms of both networks at every rate of the grid."""
    data = lab.data("mnist")

    def measure(network: str, arm: str, rate: float, seed: int) -> Measurement:
        one = trainer(network, r1.ARMS[arm])
        plan = Plan(config.steps, config.batch_size, rate, seed, every=config.steps)
        one.train_to_end(data.train, plan)
        return {"accuracy": 100 * accuracy_on(one, data.test)}

    def all_rates(network: str, arm: str, seed: int) -> list[float]:
        key = {"network": network, "arm": arm, "steps": config.steps}
        return [
            lab.once(
                {**key, "rate": rate, "seed": seed},
                partial(measure, network, arm, rate, seed),
            )["accuracy"]
            for rate in config.rates(network)
        ]

    return {
        network: [
            {arm: all_rates(network, arm, seed) for arm in r1.ARMS}
            for seed in config.seeds
        ]
        for network in NETWORKS
    }


def largest_usable(accuracies: list[float], rates: tuple[float, ...]) -> float:
    """Return the largest rate of the grid that is usable; NaN if none is."""
    usable = [r for r, a in zip(rates, accuracies, strict=True) if a >= USABLE]
    return max(usable, default=np.nan)


def analyse(measured: dict[str, Any], config: Config) -> Finding:
    """Compare the largest usable rates, seed by seed."""
    largest = {
        network: {
            arm: [largest_usable(a, config.rates(network)) for a in column(seeds, arm)]
            for arm in r1.ARMS
        }
        for network, seeds in measured.items()
    }
    ratios = {n: np.divide(r["with"], r["without"]) for n, r in largest.items()}
    enough = np.min(list(ratios.values()), axis=0) >= RATIO  # not where it is NaN
    return Finding(
        holds=bool(enough.all()),
        measured=f"the largest usable rate is {RATIO} times as high in both networks "
        f"with {int(enough.sum())} of {enough.size} seeds; the ratio is "
        + ", ".join(
            f"{np.median(r):g} ({r.min():g} to {r.max():g}) for {network}"
            for network, r in ratios.items()
        ),
        numbers=[
            *(
                Number(
                    f"largest usable rate, {network}, {arm} BN",
                    mean_and_range(rates, 1),
                )
                for network, arms in largest.items()
                for arm, rates in arms.items()
            ),
            *(
                Number(
                    f"accuracy at rate {rate:g}, {network}, {arm} BN, %",
                    mean_and_range([a[i] for a in column(seeds, arm)]),
                )
                for network, seeds in measured.items()
                for i, rate in enumerate(config.rates(network))
                for arm in r1.ARMS
            ),
        ],
        p=sign_test(np.where(enough, 1, -1).tolist()),
    )


def plot(measured: dict[str, Any], figure: Figure) -> None:
    """Draw the accuracy over the learning rate."""
    panels = figure.subplots(1, len(measured), sharey=True)
    for axes, (network, seeds) in zip(panels, measured.items(), strict=True):
        for arm, style in (("without", "o--"), ("with", "o-")):
            values = np.array(column(seeds, arm))  # (seeds, rates)
            mean = values.mean(axis=0)
            rates = Config().rates(network)[: mean.size]
            spread = [mean - values.min(axis=0), values.max(axis=0) - mean]
            axes.errorbar(rates, mean, spread, fmt=style, capsize=3, label=f"{arm} BN")
        axes.axhline(USABLE, color="grey", linewidth=0.5)
        axes.set(xscale="log", xlabel="learning rate", title=network)
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates], minor=False)
        axes.minorticks_off()
        axes.legend()
    panels[0].set_ylabel("test accuracy, %")


R3_PAPER = Experiment(
    name="r3-paper",
    title="The largest usable rates",
    claim=R3.claim,
    source=R3.source,
    criterion=f"In both networks and with every seed the largest usable rate with "
    f"batch normalization is at least {RATIO} times that without. Usable is a rate of "
    f"the grid at which the test accuracy comes to {USABLE:g} %. (With "
    "a seed without any in one of the arms it is not met.)",
    full=Config(),
    quick=Config(
        steps=20, sigmoid_rates=(2.0, 8.0), relu_rates=(0.2, 0.8), seeds=(1, 2)
    ),
    run=run,
    analyse=analyse,
    plot=plot,
)
