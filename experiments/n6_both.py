"""N6: does batch normalization lessen the need of dropout?

Ioffe & Szegedy (2015), sections 3.4 and 4.2.1: the noise of the batches regularizes,
and dropout could be reduced or removed. Two by two networks of 784-256-256-10 with ReLU
learn 500, 2,000 or 10,000 images of Fashion-MNIST: with batch normalization or without,
with dropout of 0.5 behind the last hidden layer or without. No normalization follows
that dropout. Every arm has its own learning rate at every size, chosen on validation
images.
"""

from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

import kerasnorm
from experiments.arm import Arm, Sizes
from experiments.experiment import (
    PAPER_SEEDS,
    Experiment,
    Finding,
    Number,
    column,
    mean_and_range,
)
from experiments.lab import Lab, Measurement
from experiments.nets import batch_norm, seed_of
from experiments.significance import paired_difference
from experiments.trainer import Plan, Trainer, accuracy_on, error_percent

ARMS = {
    "neither": (False, 0.0),
    "dropout": (False, 0.5),
    "batch norm": (True, 0.0),
    "both": (True, 0.5),
}


@dataclass(frozen=True)
class Config(Sizes):
    """The sizes. `judged` is the number of images that is judged."""

    width: int = 256
    sizes: tuple[int, ...] = (500, 2_000, 10_000)
    judged: int = 2_000
    steps: int = 2_000
    batch_size: int = 100
    tuning_steps: int = 2_000
    every: int = 1_000
    rates: tuple[float, ...] = (0.01, 0.03, 0.1)
    seeds: tuple[int, ...] = PAPER_SEEDS


QUICK = Config(
    width=8,
    sizes=(100,),
    judged=100,
    steps=20,
    tuning_steps=20,
    every=20,
    rates=(0.03,),
    seeds=(11, 12, 13),
)


def network(seed: int, *, width: int, arm: str) -> keras.Model:
    """Make the network of an arm."""
    normalized, rate = ARMS[arm]
    images = keras.Input((28, 28, 1))
    x = keras.layers.Flatten()(images)
    for layer in (1, 2):
        kernel = keras.initializers.HeNormal(seed_of(seed, layer))
        x = keras.layers.Dense(
            width, use_bias=not normalized, kernel_initializer=kernel
        )(x)
        if normalized:
            x = batch_norm()(x)
        x = keras.layers.ReLU()(x)
    if rate:
        x = kerasnorm.KDropout(rate, seed=seed_of(seed, 100))(x)
    last = keras.initializers.HeNormal(seed_of(seed, 3))
    return keras.Model(images, keras.layers.Dense(10, kernel_initializer=last)(x))


@cache
def trainer(width: int, arm: str) -> Trainer:
    """Return the trainer of an arm, one for all sizes of the data."""
    build = partial(network, width=width, arm=arm)
    return Trainer(build, keras.optimizers.SGD(0.1, momentum=0.9))


def run(lab: Lab, config: Config) -> dict[str, Any]:
    """Tune and train every arm at every size of the data."""
    data = lab.data("fashion_mnist")
    validation = data.validation.second_half()

    def score(network: Trainer) -> Measurement:
        return {"score": accuracy_on(network, validation)}

    def measure(network: Trainer) -> Measurement:
        return {"test_error": error_percent(network, data.test)}

    def at(size: int, arm: str) -> list[Measurement]:
        def train(plan: Plan) -> Trainer:
            images = data.train.subset(size, plan.seed)
            return trainer(config.width, arm).train_to_end(images, plan)

        key = {"arm": arm, "images": size, "width": config.width}
        return Arm(lab, config, key, train, score).with_seeds(measure)

    return {str(size): {arm: at(size, arm) for arm in ARMS} for size in config.sizes}


def gains(measured: dict[str, Any], size: int) -> tuple[list[float], list[float]]:
    """Return the points that dropout gains without normalization, and with it."""
    errors = {
        arm: np.array(column(rows, "test_error"))
        for arm, rows in measured[str(size)].items()
    }
    without = errors["neither"] - errors["dropout"]
    return without.tolist(), (errors["batch norm"] - errors["both"]).tolist()


def analyse(measured: dict[str, Any], config: Config) -> Finding:
    """Compare dropout's gain without normalization with that beside it."""
    differences = {
        size: paired_difference(*gains(measured, size)) for size in config.sizes
    }
    judged = differences[config.judged]
    zeros = [0.0] * len(config.seeds)
    alone = paired_difference(gains(measured, config.judged)[0], zeros)
    return Finding(
        holds=alone.lower > 0 and judged.lower > 0,
        measured=f"with {config.judged} images dropout gains {alone} points without "
        f"normalization, and that is {judged} more than with it",
        numbers=[
            Number(
                f"test error, {size} images, {arm}, %",
                mean_and_range(column(measured[str(size)][arm], "test_error")),
            )
            for size in config.sizes
            for arm in ARMS
        ],
        p=max(alone.p_greater, judged.p_greater),
        remark="At every size, the gain without minus the gain with normalization: "
        + "; ".join(f"{size}: {found}" for size, found in differences.items())
        + ".",
    )


def plot(measured: dict[str, Any], figure: Figure) -> None:
    """Draw the errors over the size of the data."""
    axes = figure.subplots()
    sizes = [int(size) for size in measured]
    styles = ("C0o--", "C0o-", "C1o--", "C1o-")
    for arm, style in zip(ARMS, styles, strict=True):
        means = [np.mean(column(rows[arm], "test_error")) for rows in measured.values()]
        axes.plot(sizes, means, style, label=arm)
    axes.set(xscale="log", xlabel="training images", ylabel="test error, %")
    axes.legend()


N6 = Experiment(
    name="n6",
    title="Dropout beside batch normalization",
    claim="Dropout gains less in a network that has batch normalization.",
    source="Ioffe & Szegedy 2015, sections 3.4 and 4.2.1",
    criterion="With 2,000 images the interval of dropout's gain without normalization "
    "lies above 0, and so does the interval of that gain minus the gain with "
    "normalization.",
    full=Config(),
    quick=QUICK,
    run=run,
    analyse=analyse,
    plot=plot,
)
