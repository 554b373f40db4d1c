"""R3: batch normalization bears learning rates that are too high without it.

Ioffe & Szegedy (2015), sections 3.3 and 4.2.1: BN-x5 and BN-x30 are Inception with 5
and 30 times the learning rate; without normalization a rate 5 times as high "caused the
parameters to reach machine infinity". Here it is the network of R1 at 1, 5 and 30
times the rate that R1 found best without normalization.

In the first full run that rate was 3, the largest that learned at all. At 90 both
networks failed, and the claim with them. Factors between 5 and 30 were tried then. They
are reported beside the verdict and do not change it.
"""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import r1_bn_is_faster as r1
from experiments.experiment import Experiment, Finding, Number, mean_and_range
from experiments.lab import Lab, Measurement
from experiments.significance import sign_test
from experiments.trainer import Plan, accuracy

FACTORS = (1, 5, 30)
EXPLORED = (10, 15)


@dataclass(frozen=True)
class Config:
    """The sizes."""

    tuning: r1.Config = r1.FULL
    steps: int = 5_000


def run(lab: Lab, config: Config) -> dict[str, Any]:
    """Train both arms at every rate."""
    data = r1.binary_mnist(lab)
    stddev, rates = r1.tuned(lab.of("r1", asdict(config.tuning)), config.tuning)

    def measure(arm: str, rate: float, seed: int) -> Measurement:
        network = r1.trainer(r1.ARMS[arm], stddev)
        plan = Plan(
            config.steps,
            config.tuning.batch_size,
            rate,
            seed,
            every=config.tuning.every,
        )
        network.train_to_end(data.train, plan)
        logits = network.outputs(data.test.images)
        return {
            "accuracy": 100 * accuracy(logits, data.test.labels),
            "finite": bool(np.isfinite(logits).all()),
        }

    def all_seeds(arm: str, factor: int) -> list[Measurement]:
        rate = factor * rates["without"]
        key = {"arm": arm, "factor": factor, "stddev": stddev, "steps": config.steps}
        key["rate"] = rate
        return lab.with_seeds(key, config.tuning.seeds, partial(measure, arm, rate))

    def both_arms(factors: tuple[int, ...]) -> dict[str, Any]:
        return {arm: [all_seeds(arm, factor) for factor in factors] for arm in r1.ARMS}

    return {
        "base_rate": rates["without"],
        **both_arms(FACTORS),
        "explored": both_arms(EXPLORED),
    }


def accuracies(measured: dict[str, Any], arm: str) -> np.ndarray:
    """Return accuracies, (factors, seeds). Outputs that are not numbers count as 0."""
    return np.array(
        [
            [m["accuracy"] if m["finite"] else 0.0 for m in seeds]
            for seeds in measured[arm]
        ]
    )


def _explored(measured: dict[str, Any]) -> str:
    """Describe the factors that were tried later."""
    with_norm, without = accuracies(measured, "with"), accuracies(measured, "without")
    return "Tried after this result, and no part of the criterion: " + "; ".join(
        f"at x{factor} {mean_and_range(with_norm[i].tolist())} % with, "
        f"{mean_and_range(without[i].tolist())} % without"
        for i, factor in enumerate(EXPLORED)
    )


def analyse(measured: dict[str, Any], config: Config) -> Finding:
    """Find what normalization loses at 5 times the rate, and who wins at 30."""
    with_norm, without = accuracies(measured, "with"), accuracies(measured, "without")
    lost = float(np.mean(with_norm[0] - with_norm[1]))
    lead = with_norm[2] - without[2]
    wins = int(np.sum(lead > 0))
    return Finding(
        holds=lost <= 1 and wins == lead.size,
        measured=f"at x5 batch normalization loses {lost:.2f} points; at x30 it beats "
        f"the network without in {wins} of {lead.size} seeds",
        numbers=[
            Number(
                f"accuracy at x{factor} (rate {factor * measured['base_rate']:g}), "
                f"{arm} BN, %",
                mean_and_range(values[i].tolist()),
            )
            for i, factor in enumerate(FACTORS)
            for arm, values in (("without", without), ("with", with_norm))
        ],
        p=sign_test(lead.tolist()),
        remark=f"{_explored(measured['explored'])}.",
    )


def plot(measured: dict[str, Any], figure: Figure) -> None:
    """Draw the accuracy over the learning rate."""
    axes = figure.subplots()
    for arm, style in (("without", "o--"), ("with", "o-")):
        values = accuracies(measured, arm)
        mean = values.mean(axis=1)
        spread = [mean - values.min(axis=1), values.max(axis=1) - mean]
        axes.errorbar(FACTORS, mean, spread, fmt=style, capsize=3, label=f"{arm} BN")
    axes.set(
        xscale="log",
        xlabel="learning rate, as a multiple of the best without BN",
        ylabel="test accuracy, %",
    )
    axes.set_xticks(FACTORS, [f"x{factor}" for factor in FACTORS])
    axes.legend()


R3 = Experiment(
    name="r3",
    title="Batch normalization bears high rates",
    claim="Batch normalization makes much higher learning rates usable.",
    source="Ioffe & Szegedy 2015, sections 3.3 and 4.2.1",
    criterion="At 5 times the best rate without it, batch normalization loses at most "
    "1 point against 1 time; at 30 times it beats the network without, with every "
    "seed. Outputs that are not numbers are failures.",
    full=Config(),
    quick=Config(tuning=r1.QUICK, steps=100),
    run=run,
    analyse=analyse,
    plot=plot,
)
