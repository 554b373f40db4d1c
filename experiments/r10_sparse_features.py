"""R10: dropout makes the hidden units of an autoencoder sparser.

Srivastava et al. (2014), section 7.2, figures 7 and 8: an autoencoder with one layer of
256 rectified linear units on MNIST, p = 0.5 in the hidden layer. The mean activation of
the hidden units falls from 2.0 to 0.7, and most of them are near 0.

The size of an activation depends on where the factor p stands. Here it stands as in the
paper: `scale_at="inference"`. The outputs are sigmoids, and the loss is the
cross-entropy of the pixels. Activations are those of 10,000 test images, without
dropout and before the factor p.
"""

from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

import kerasnorm
from experiments.arm import Arm, Sizes
from experiments.experiment import (
    Experiment,
    Finding,
    Number,
    column,
    mean_and_range,
)
from experiments.lab import Lab, Measurement
from experiments.nets import seed_of
from experiments.significance import sign_test
from experiments.trainer import Plan, Trainer

ARMS = {"without": 0.0, "with": 0.5}
PAPER = {"without": "2.0", "with": "0.7"}
NEAR_ZERO = 0.01
BINS = np.linspace(0, 10, 101)


@dataclass(frozen=True)
class Config(Sizes):
    """The sizes."""

    units: int = 256
    steps: int = 3_000
    batch_size: int = 100
    tuning_steps: int = 1_000
    every: int = 500
    rates: tuple[float, ...] = (0.003, 0.01, 0.03)


QUICK = Config(
    units=32, steps=40, tuning_steps=20, every=20, rates=(0.01,), seeds=(1, 2)
)


def autoencoder(seed: int, *, units: int, rate: float) -> keras.Model:
    """Make a network of 784 pixels, ReLU units with dropout, and 784 logits."""
    images = keras.Input((28, 28, 1))
    x = keras.layers.Flatten()(images)
    encoder = keras.initializers.HeNormal(seed_of(seed, 1))
    x = keras.layers.Dense(units, kernel_initializer=encoder)(x)
    x = keras.layers.ReLU(name="hidden")(x)
    noise = kerasnorm.KDropout(
        rate, scale_at="inference", seed=seed_of(seed, 100), name="dropout"
    )
    decoder = keras.initializers.GlorotUniform(seed_of(seed, 2))
    return keras.Model(
        images, keras.layers.Dense(784, kernel_initializer=decoder)(noise(x))
    )


def pixel_cross_entropy(
    outputs: tf.Tensor, images: tf.Tensor, labels: tf.Tensor
) -> tf.Tensor:
    """Return the cross-entropy, summed over the pixels, averaged over the images."""
    pixels = tf.reshape(images, tf.shape(outputs))
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(pixels, outputs)
    return tf.reduce_mean(tf.reduce_sum(entropy, axis=-1))


@cache
def trainer(units: int, arm: str) -> Trainer:
    """Return the trainer of an autoencoder."""
    build = partial(autoencoder, units=units, rate=ARMS[arm])
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    return Trainer(build, optimizer, pixel_cross_entropy)


def reconstruction_loss(trainer: Trainer, images: np.ndarray) -> float:
    """Return the loss at inference."""
    logits = trainer.outputs(images).astype("float64")
    pixels = images.reshape(logits.shape) / 255.0
    return float(np.mean(np.sum(np.logaddexp(0, logits) - pixels * logits, axis=-1)))


def run(lab: Lab, config: Config) -> dict[str, Any]:
    """Tune both arms, then train each with every seed."""
    data = lab.data("mnist")

    def score(network: Trainer) -> Measurement:
        value = reconstruction_loss(network, data.validation.images)
        return {"score": -value if np.isfinite(value) else -1e9}

    def measure(network: Trainer) -> Measurement:
        hidden = network.outputs(data.test.images, "dropout")
        counts, _ = np.histogram(hidden, BINS)
        return {
            "mean_activation": float(hidden.mean(dtype="float64")),
            "near_zero": float(np.mean(hidden < NEAR_ZERO)),
            "test_loss": reconstruction_loss(network, data.test.images),
            "histogram": (counts / hidden.size).round(6).tolist(),
        }

    def measured(arm: str) -> list[Measurement]:
        def train(plan: Plan) -> Trainer:
            return trainer(config.units, arm).train_to_end(data.train, plan)

        key = {"arm": arm, "units": config.units}
        return Arm(lab, config, key, train, score).with_seeds(measure)

    return {arm: measured(arm) for arm in ARMS}


def analyse(measured: dict[str, Any], config: Config) -> Finding:
    """Compare the mean activations."""
    activations = {arm: column(measured[arm], "mean_activation") for arm in ARMS}
    ratios = np.divide(activations["with"], activations["without"])
    small = int(np.sum(ratios <= 0.6))
    return Finding(
        holds=small == len(ratios),
        measured=f"ratio of the mean activations {ratios.mean():.2f} "
        f"({ratios.min():.2f} to {ratios.max():.2f}); at most 0.6 with {small} of "
        f"{len(ratios)} seeds",
        numbers=[
            Number(
                f"mean activation, {arm} dropout",
                mean_and_range(activations[arm]),
                PAPER[arm],
            )
            for arm in ARMS
        ]
        + [
            Number(
                f"share of activations below {NEAR_ZERO}, {arm} dropout",
                mean_and_range(column(measured[arm], "near_zero")),
            )
            for arm in ARMS
        ]
        + [
            Number(
                f"test loss, {arm} dropout, nats an image",
                mean_and_range(column(measured[arm], "test_loss"), 1),
            )
            for arm in ARMS
        ],
        p=sign_test((0.6 - ratios).tolist()),
    )


def plot(measured: dict[str, Any], figure: Figure) -> None:
    """Draw figures 7b and 8b: histograms of the activations."""
    rows = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, arm in zip(rows, ARMS, strict=True):
        share = np.mean(column(measured[arm], "histogram"), axis=0)
        axes.stairs(share, BINS, fill=True)
        mean = np.mean(column(measured[arm], "mean_activation"))
        axes.axvline(mean, color="k", label=f"mean, ours {mean:.2f}")
        paper = float(PAPER[arm])
        axes.axvline(paper, color="C1", linestyle="--", label=f"mean, paper {paper}")
        axes.set(title=f"{arm} dropout", xlabel="activation", yscale="log")
        axes.legend()
    rows[0].set_ylabel("share of all activations")


R10 = Experiment(
    name="r10",
    title="Sparser features",
    claim="Dropout makes the activations of the hidden units sparse.",
    source="Srivastava et al. 2014, section 7.2, figures 7 and 8",
    criterion="The mean activation with dropout is at most 0.6 times that without, "
    "with every seed.",
    full=Config(),
    quick=QUICK,
    run=run,
    analyse=analyse,
    plot=plot,
)
