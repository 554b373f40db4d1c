"""N4: noise behind batch normalization, and how far a gradient can be trusted.

Santurkar et al. (2018), arXiv:1805.11604: with noise behind each normalization, whose
mean and variance change at every step, the inputs of the next layer shift more than
without normalization, and the network trains about as fast as with normalization alone
(section 2.1, figure 2). With normalization the gradient changes less along a step
(section 3.1, figure 4). It changes no less when the layers before it are updated
(section 2.2, figure 3).

The network is that of Ioffe & Szegedy (2015), section 4.1: three layers of 100
sigmoids, batches of 60; on Fashion-MNIST, with initial weights of standard deviation
0.1 and a learning rate of 0.5 for all arms, the setting of page 8 of the guide. The
noise is that of Santurkar et al., appendix A, with their constants.
"""

from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from experiments.data import Split
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
from experiments.significance import paired_difference, sign_test
from experiments.trainer import Plan, Trainer, accuracy_on, cross_entropy

ARMS = ("without", "with", "noisy")
LAYERS = 3
MEAN, STDDEV, JITTER = 0.5, 1.25, 0.1  # Santurkar et al., appendix A


@dataclass(frozen=True)
class Config:
    """The sizes. `images` measure the shift and the gradients."""

    width: int = 100
    stddev: float = 0.1
    rate: float = 0.5
    steps: int = 3_000
    batch_size: int = 60
    every: int = 300
    images: int = 500
    test_images: int = 2_000
    seeds: tuple[int, ...] = PAPER_SEEDS


QUICK = Config(
    width=8, steps=40, every=20, images=100, test_images=200, seeds=(11, 12, 13)
)


class ShiftingNoise(keras.layers.Layer):
    """In training multiply and add noise whose distribution changes at every call.

    Each unit draws a mean from U(-MEAN, MEAN) and a standard deviation from U(1,
    STDDEV); each of its values is multiplied by N(that, JITTER) and gets U(the mean -
    JITTER, the mean + JITTER) added.
    """

    def __init__(self, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return the inputs with noise in training."""
        if not training:
            return inputs
        shape = tf.shape(inputs)
        uniform = partial(keras.random.uniform, seed=self.generator)
        mean = uniform((1, shape[1]), -MEAN, MEAN)
        stddev = uniform((1, shape[1]), 1.0, STDDEV)
        factors = stddev + keras.random.normal(shape, 0, JITTER, seed=self.generator)
        return factors * inputs + mean + uniform(shape, -JITTER, JITTER)


def network(seed: int, *, width: int, stddev: float, arm: str) -> keras.Model:
    """Make the network of an arm."""
    images = keras.Input((28, 28, 1))
    x = keras.layers.Flatten()(images)
    for layer in range(1, LAYERS + 1):
        kernel = keras.initializers.RandomNormal(0, stddev, seed_of(seed, layer))
        x = keras.layers.Dense(
            width, use_bias=arm == "without", kernel_initializer=kernel
        )(x)
        if arm != "without":
            x = batch_norm()(x)
        if arm == "noisy":
            x = ShiftingNoise(seed_of(seed, 100 + layer))(x)
        x = keras.layers.Activation("sigmoid", name=f"hidden_{layer}")(x)
    last = keras.initializers.RandomNormal(0, stddev, seed_of(seed, LAYERS + 1))
    return keras.Model(images, keras.layers.Dense(10, kernel_initializer=last)(x))


@cache
def trainer(width: int, stddev: float, arm: str) -> Trainer:
    """Return the trainer of an arm."""
    build = partial(network, width=width, stddev=stddev, arm=arm)
    return Trainer(build, keras.optimizers.SGD(0.5))


class Probe:
    """Looks at a network as it is in training, on the same images, and leaves it so."""

    def __init__(self, model: keras.Model, images: Split) -> None:
        self._model = model
        self._inputs = keras.Model(
            model.inputs, model.get_layer(f"hidden_{LAYERS}").input
        )
        self._x = tf.constant(images.images.astype("float32") / 255)
        self._y = tf.constant(images.labels)
        self._units = tf.function(lambda: self._inputs(self._x, training=True))
        self._differentiate = tf.function(self._gradients)

    def look(self, rate: float) -> tuple[np.ndarray, dict[str, float]]:
        """Return the last sigmoids' inputs, and how much gradients change.

        Args:
            rate: The learning rate of the steps that are tried.
        """
        kept = [v.numpy() for v in self._model.variables]

        def restore() -> None:
            for variable, value in zip(self._model.variables, kept, strict=True):
                variable.assign(value)

        units = self._units().numpy()
        restore()
        gradients = self._differentiate()
        variables = self._model.trainable_variables
        last = next(
            i for i, v in enumerate(variables) if v is self._last_hidden().kernel
        )

        def after(first: int) -> list[tf.Tensor]:
            restore()
            moved = zip(variables[:first], gradients[:first], strict=True)
            for variable, gradient in moved:
                variable.assign_sub(rate * gradient)
            found = self._differentiate()
            restore()
            return found

        return units, {
            "along a step": change(gradients, after(len(variables))),
            "as layers before move": change([gradients[last]], [after(last)[last]]),
            "gradient": float(tf.linalg.global_norm(gradients)),
        }

    def _last_hidden(self) -> Any:
        dense = [la for la in self._model.layers if isinstance(la, keras.layers.Dense)]
        return dense[LAYERS - 1]

    def _gradients(self) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            outputs = self._model(self._x, training=True)
            loss = cross_entropy(outputs, self._x, self._y)
        return tape.gradient(loss, self._model.trainable_variables)


def change(before: list[tf.Tensor], after: list[tf.Tensor]) -> float:
    """Return the norm of the difference, as a fraction of the norm before."""
    difference = [a - b for a, b in zip(after, before, strict=True)]
    return float(tf.linalg.global_norm(difference) / tf.linalg.global_norm(before))


def run(lab: Lab, config: Config) -> dict[str, Any]:
    """Train all arms with every seed, and look at them at every pause."""
    data = lab.data("fashion_mnist")
    test = data.test.first(config.test_images)

    def measure(arm: str, seed: int) -> Measurement:
        one = trainer(config.width, config.stddev, arm)
        probe = probe_of(arm)
        plan = Plan(
            config.steps, config.batch_size, config.rate, seed, every=config.every
        )
        curve, means, widths, changes = [], [], [], []
        for _ in one.train(data.train, plan):
            curve.append(100 * accuracy_on(one, test))
            units, found = probe.look(config.rate)
            means.append(units.mean(axis=0))
            widths.append(units.std(axis=0))
            changes.append(found)
        return {
            "curve": curve,
            "accuracy": float(np.mean(curve)),
            "at the end": curve[-1],
            "shift": float(np.mean(np.std(means, axis=0))),
            "shift in widths": float(
                np.mean(np.std(means, axis=0) / np.mean(widths, axis=0))
            ),
            **{
                f"change {name}": float(np.mean(column(changes, name)))
                for name in changes[0]
            },
        }

    @cache
    def probe_of(arm: str) -> Probe:
        model = trainer(config.width, config.stddev, arm).model
        return Probe(model, data.train.first(config.images))

    key = {"steps": config.steps, "rate": config.rate, "width": config.width}
    return {
        arm: lab.with_seeds({**key, "arm": arm}, config.seeds, partial(measure, arm))
        for arm in ARMS
    }


NUMBERS = {
    "accuracy": ("test accuracy, mean over the training, %", 2),
    "at the end": ("test accuracy at the end, %", 2),
    "shift": ("shift of the last sigmoids' inputs", 3),
    "shift in widths": ("the same, in widths of their distribution", 3),
    "change along a step": ("change of the gradient along a step, relative", 3),
    "change as layers before move": (
        "change of the last hidden layer's gradient as the layers before move, "
        "relative",
        3,
    ),
    "change gradient": ("norm of the gradient", 3),
}


def analyse(measured: dict[str, Any], config: Config) -> Finding:
    """Compare speed and shift with noise, and the gradients, with none."""

    def lead(first: str, second: str, name: str) -> list[float]:
        pair = (column(measured[arm], name) for arm in (first, second))
        return [a - b for a, b in zip(*pair, strict=True)]

    leads = {
        "the inputs shift more": lead("noisy", "without", "shift"),
        "it learns faster": lead("noisy", "without", "accuracy"),
        "with normalization gradients change less along a step": lead(
            "without", "with", "change along a step"
        ),
    }
    wins = {what: sum(x > 0 for x in values) for what, values in leads.items()}
    seeds = len(config.seeds)
    zeros = [0.0] * seeds
    lost = paired_difference(lead("with", "noisy", "accuracy"), zeros)
    moved = paired_difference(
        lead("with", "without", "change as layers before move"), zeros
    )
    return Finding(
        holds=all(count == seeds for count in wins.values()),
        measured="with noise behind normalization, against no normalization: "
        + ", ".join(f"{what} with {n} of {seeds} seeds" for what, n in wins.items()),
        numbers=[
            Number(
                f"{what}, {arm}", mean_and_range(column(measured[arm], name), digits)
            )
            for name, (what, digits) in NUMBERS.items()
            for arm in ARMS
        ],
        p=max(sign_test(values) for values in leads.values()),
        remark="No part of the criterion: the noise costs "
        f"{lost} points of the mean accuracy; the change of the last hidden layer's "
        f"gradient as the layers before move, with minus without: {moved}.",
    )


def plot(measured: dict[str, Any], figure: Figure) -> None:
    """Draw the accuracy over the steps, the shift and the change of gradients."""
    left, middle, right = figure.subplots(1, 3, width_ratios=(2, 1, 1))
    labels = ("no BN", "BN", "BN, noise")
    for colour, arm in enumerate(ARMS):
        curves = np.array(column(measured[arm], "curve"))
        left.plot(curves.mean(axis=0), color=f"C{colour}", label=labels[colour])
        left.fill_between(
            range(curves.shape[1]),
            curves.min(axis=0),
            curves.max(axis=0),
            color=f"C{colour}",
            alpha=0.2,
            linewidth=0,
        )
    left.set(xlabel="pause of the training", ylabel="test accuracy, %")
    left.legend()
    for axes, name, title in (
        (middle, "shift", "shift of a sigmoid's\ninput"),
        (right, "change along a step", "change of the gradient\nalong a step"),
    ):
        for colour, arm in enumerate(ARMS):
            found = column(measured[arm], name)
            axes.plot([colour] * len(found), found, "o", color=f"C{colour}", alpha=0.5)
        axes.set_xticks(range(len(ARMS)), labels, fontsize=8)
        axes.set_title(title, fontsize=9)
        axes.set_ylim(0, None)


N4 = Experiment(
    name="n4",
    title="Noise behind batch normalization",
    claim="Batch normalization helps although the inputs shift more, if noise makes "
    "them; and with it a gradient changes less along a step.",
    source="Santurkar et al. 2018, arXiv:1805.11604, figures 2 and 4",
    criterion="With every seed: with noise behind normalization the inputs of the last "
    "sigmoids shift more than without normalization (standard deviation over the "
    "training of a unit's mean), and the mean test accuracy "
    "over the training is higher; and with normalization the relative change of the "
    "gradient along a step is smaller than without.",
    full=Config(),
    quick=QUICK,
    run=run,
    analyse=analyse,
    plot=plot,
)
