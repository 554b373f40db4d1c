"""R4: batch normalization lets LeNet with sigmoids learn Fashion-MNIST.

Zhang et al., "Dive into Deep Learning": LeNet with sigmoids, batch 256, 10 epochs,
rate 0.9, reaches 0.779 test accuracy on Fashion-MNIST (section 7.6), which is far below
what the same network reaches with batch normalization before each sigmoid (section
8.5). Here both arms start from the same weights and have a rate of their own, found on
validation images. Ten epochs of 25,000 images in batches of 125 are 2,000 steps, about
as many as there.
"""

from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

from experiments.arm import Arm, Sizes
from experiments.experiment import (
    Experiment,
    Finding,
    Number,
    column,
    mean_and_range,
)
from experiments.lab import Lab, Measurement
from experiments.nets import batch_norm, seed_of
from experiments.significance import paired_difference
from experiments.trainer import Plan, Trainer, accuracy_on

ARMS = {"without": False, "with": True}
PAPER = 77.9  # without; no exact value is known with


@dataclass(frozen=True)
class Config(Sizes):
    """The sizes."""

    images: int = 25_000
    batch_size: int = 125
    steps: int = 2_000  # 10 epochs
    tuning_steps: int = 1_000
    every: int = 200  # an epoch
    rates: tuple[float, ...] = (0.9, 2.0)
    watched_images: int = 2_500


QUICK = Config(
    images=500,
    batch_size=25,
    steps=10,
    tuning_steps=5,
    every=5,
    rates=(0.9,),
    watched_images=500,
    seeds=(1, 2),
)


def lenet(seed: int, *, norm: bool) -> keras.Model:
    """Make LeNet-5 with sigmoids and average pooling.

    Without normalization it has 61,706 parameters.
    """

    def options(layer: int) -> dict[str, Any]:
        initializer = keras.initializers.GlorotUniform(seed_of(seed, layer))
        return {"kernel_initializer": initializer, "use_bias": not norm}

    def activated(x: keras.KerasTensor) -> keras.KerasTensor:
        return keras.layers.Activation("sigmoid")(batch_norm()(x) if norm else x)

    images = keras.Input((28, 28, 1))
    x = keras.layers.Conv2D(6, 5, padding="same", **options(1))(images)
    x = keras.layers.AveragePooling2D(2)(activated(x))
    x = keras.layers.Conv2D(16, 5, **options(2))(x)
    x = keras.layers.AveragePooling2D(2)(activated(x))
    x = keras.layers.Flatten()(x)
    for layer, units in ((3, 120), (4, 84)):
        x = activated(keras.layers.Dense(units, **options(layer))(x))
    last = {**options(5), "use_bias": True}
    return keras.Model(images, keras.layers.Dense(10, **last)(x))


@cache
def trainer(norm: bool, xla: bool = False) -> Trainer:
    """Return the trainer of LeNet."""
    return Trainer(partial(lenet, norm=norm), keras.optimizers.SGD(), xla=xla)


def run(lab: Lab, config: Config) -> dict[str, Any]:
    """Tune both arms, then train each with every seed."""
    data = lab.data("fashion_mnist")
    images = data.train.first(config.images)
    watched = data.validation.first(config.watched_images)

    def score(curve: list[float]) -> Measurement:
        return {"score": curve[-1], "curve": curve}

    def measured(arm: str) -> list[Measurement]:
        def train(plan: Plan) -> list[float]:
            network = trainer(ARMS[arm])
            pauses = network.train(images, plan)
            return [100 * accuracy_on(network, watched) for _ in pauses]

        def measure(curve: list[float]) -> Measurement:
            accuracy = accuracy_on(trainer(ARMS[arm]), data.test)
            return {"test_accuracy": 100 * accuracy, "curve": curve}

        one = Arm(lab, config, {"arm": arm}, train, score, decay=False)
        return one.with_seeds(measure)

    return {arm: measured(arm) for arm in ARMS}


def analyse(measured: dict[str, Any], config: Config) -> Finding:
    """Compare the accuracies."""
    accuracies = {arm: column(measured[arm], "test_accuracy") for arm in ARMS}
    gain = paired_difference(accuracies["with"], accuracies["without"])
    return Finding(
        holds=gain.lower > 0 and gain.mean >= 3,
        measured=f"gain {gain} points",
        numbers=[
            Number(
                f"test accuracy, {arm} BN, %",
                mean_and_range(accuracies[arm]),
                "" if ARMS[arm] else f"{PAPER} (d2l)",
            )
            for arm in ARMS
        ],
        p=gain.p_greater,
    )


def plot(measured: dict[str, Any], figure: Figure) -> None:
    """Draw the validation accuracy, epoch by epoch."""
    axes = figure.subplots()
    for arm, style in (("without", "o--"), ("with", "o-")):
        curves = np.array(column(measured[arm], "curve"))
        epochs = np.arange(1, curves.shape[1] + 1)
        axes.plot(epochs, curves.mean(axis=0), style, label=f"{arm} BN")
        axes.fill_between(epochs, curves.min(axis=0), curves.max(axis=0), alpha=0.2)
    axes.axhline(PAPER, color="C3", linestyle=":", label="d2l, without BN, at the end")
    axes.set(xlabel="epochs", ylabel="validation accuracy, %")
    axes.legend(loc="lower right")


R4 = Experiment(
    name="r4",
    title="LeNet with sigmoids",
    claim="Batch normalization makes a network of saturating nonlinearities trainable.",
    source="Ioffe & Szegedy 2015, section 1; Zhang et al., Dive into Deep Learning, "
    "sections 7.6 and 8.5",
    criterion="The interval of (accuracy with minus accuracy without) lies above 0, "
    "and the mean gain is at least 3 points.",
    full=Config(),
    quick=QUICK,
    run=run,
    analyse=analyse,
    plot=plot,
)
