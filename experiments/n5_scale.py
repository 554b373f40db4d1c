"""N5: initial weights of the wrong scale, and epsilon's part in it.

Ioffe & Szegedy (2015), section 3.3: with batch normalization the output does not depend
on the scale of the weights before it. That is exact if epsilon is 0. A variance that is
not large beside epsilon is not brought to 1, so small weights matter after all.

The network is that of N1, with ReLU, on Fashion-MNIST. He's initial weights are
multiplied by 0.001 to 100. Each arm has one learning rate for all scales, the best at
the factor 1, chosen on validation images.
"""

from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

from experiments.arm import Sizes
from experiments.experiment import (
    PAPER_SEEDS,
    TUNING_SEED,
    Experiment,
    Finding,
    Number,
    column,
    mean_and_range,
)
from experiments.lab import Lab, Measurement
from experiments.nets import batch_norm, seed_of
from experiments.significance import sign_test
from experiments.trainer import Plan, Trainer, accuracy_on

ARMS: dict[str, float | None] = {
    "without": None,
    "epsilon 1e-3": 1e-3,
    "epsilon 1e-7": 1e-7,
}
USUAL, TINY = "epsilon 1e-3", "epsilon 1e-7"
ROBUST = 2.0  # points


@dataclass(frozen=True)
class Config(Sizes):
    """The sizes. The first factor is the one that is judged."""

    width: int = 128
    factors: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
    steps: int = 1_000
    batch_size: int = 64
    tuning_steps: int = 1_000
    every: int = 500
    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1)
    seeds: tuple[int, ...] = PAPER_SEEDS


QUICK = Config(
    width=8,
    factors=(0.01, 1.0),
    steps=20,
    tuning_steps=20,
    every=20,
    rates=(0.03,),
    seeds=(11, 12, 13),
)


def network(seed: int, *, width: int, epsilon: float | None) -> keras.Model:
    """Make the network with He's initial weights."""
    images = keras.Input((28, 28, 1))
    x = keras.layers.Flatten()(images)
    for layer in (1, 2, 3):
        kernel = keras.initializers.HeNormal(seed_of(seed, layer))
        x = keras.layers.Dense(
            width, use_bias=epsilon is None, kernel_initializer=kernel
        )(x)
        if epsilon is not None:
            x = batch_norm(epsilon=epsilon)(x)
        x = keras.layers.ReLU()(x)
    last = keras.initializers.HeNormal(seed_of(seed, 4))
    return keras.Model(images, keras.layers.Dense(10, kernel_initializer=last)(x))


def scaled(seed: int, *, width: int, arm: str, factor: float) -> keras.Model:
    """Make the network of an arm, with its hidden layers' weights times a factor."""
    model = network(seed, width=width, epsilon=ARMS[arm])
    dense = [la for la in model.layers if isinstance(la, keras.layers.Dense)]
    for layer in dense[:-1]:
        layer.kernel.assign(factor * layer.kernel)
    return model


@cache
def trainer(width: int, arm: str, factor: float) -> Trainer:
    """Return the trainer of an arm and a factor."""
    build = partial(scaled, width=width, arm=arm, factor=factor)
    return Trainer(build, keras.optimizers.SGD(0.1, momentum=0.9))


def run(lab: Lab, config: Config) -> dict[str, Any]:
    """Tune each arm at the factor 1 and train it at all."""
    data = lab.data("fashion_mnist")
    validation = data.validation.second_half()

    def train(arm: str, factor: float, steps: int, rate: float, seed: int) -> Trainer:
        plan = Plan(steps, config.batch_size, rate, seed, True, config.every)
        return trainer(config.width, arm, factor).train_to_end(data.train, plan)

    def score(arm: str, rate: float) -> Measurement:
        one = train(arm, 1.0, config.tuning_steps, rate, TUNING_SEED)
        return {"score": accuracy_on(one, validation)}

    def measure(arm: str, factor: float, rate: float, seed: int) -> Measurement:
        one = train(arm, factor, config.steps, rate, seed)
        return {"accuracy": 100 * accuracy_on(one, data.test)}

    def at_all_factors(arm: str) -> list[list[Measurement]]:
        key = {"arm": arm, "steps": config.steps, "width": config.width}
        rate = lab.tune_rate(key, config.rates, partial(score, arm))
        return [
            lab.with_seeds(
                {**key, "factor": factor, "rate": rate},
                config.seeds,
                partial(measure, arm, factor, rate),
            )
            for factor in config.factors
        ]

    return {
        "factors": config.factors,
        **{arm: at_all_factors(arm) for arm in ARMS},
    }


def analyse(measured: dict[str, Any], config: Config) -> Finding:
    """Compare the arms at the smallest weights, with He's beside them."""
    usual_scale = config.factors.index(1.0)

    def accuracies(arm: str, factor: int) -> np.ndarray:
        return np.array(column(measured[arm][factor], "accuracy"))

    smallest = {arm: accuracies(arm, 0) for arm in ARMS}
    leads = {
        f"{USUAL} above none": smallest[USUAL] - smallest["without"],
        f"{TINY} above {USUAL}": smallest[TINY] - smallest[USUAL],
    }
    wins = {what: int(np.sum(lead > 0)) for what, lead in leads.items()}
    lost = float(np.mean(accuracies(TINY, usual_scale) - smallest[TINY]))
    seeds = len(config.seeds)
    return Finding(
        holds=all(count == seeds for count in wins.values()) and lost <= ROBUST,
        measured=f"with initial weights of {config.factors[0]:g} times He's: "
        + ", ".join(f"{w} with {n} of {seeds} seeds" for w, n in wins.items())
        + f"; {TINY} loses {lost:.2f} points to its accuracy with He's",
        numbers=[
            Number(
                f"test accuracy, weights x{factor:g}, {arm}, %",
                mean_and_range(column(measured[arm][i], "accuracy")),
            )
            for i, factor in enumerate(config.factors)
            for arm in ARMS
        ],
        p=max(sign_test(lead.tolist()) for lead in leads.values()),
        remark="Weights that are too large are reported and not judged.",
    )


def plot(measured: dict[str, Any], figure: Figure) -> None:
    """Draw the accuracy over the factor of the initial weights."""
    axes = figure.subplots()
    factors = measured["factors"]
    for arm in ARMS:
        found = [column(seeds, "accuracy") for seeds in measured[arm]]
        mean = np.mean(found, axis=1)
        spread = [mean - np.min(found, axis=1), np.max(found, axis=1) - mean]
        axes.errorbar(factors, mean, spread, fmt="o-", capsize=3, label=arm)
    axes.set(
        xscale="log",
        xlabel="factor of He's initial weights in the hidden layers",
        ylabel="test accuracy, %",
    )
    axes.legend()


N5 = Experiment(
    name="n5",
    title="The scale of the initial weights",
    claim="Batch normalization makes up for initial weights that are far too small, "
    "and the more so the smaller epsilon is.",
    source="Ioffe & Szegedy 2015, section 3.3",
    criterion="With initial weights of 0.001 times He's the test accuracy is higher "
    "with normalization and epsilon 1e-3 than without normalization, and higher with "
    "epsilon 1e-7 than with 1e-3, both with every seed; with 1e-7 the mean loses at "
    f"most {ROBUST:g} points to that with He's weights.",
    full=Config(),
    quick=QUICK,
    run=run,
    analyse=analyse,
    plot=plot,
)
