"""N2: which average of the statistics is good when.

Wu & Johnson (2021), arXiv:2105.07576, section 3: an exponential average lags behind
weights that still move and keeps its initial values for long. Statistics that are
measured again with the present weights ("precise BN") are better then; at the end of a
training the two agree.

The network is 784-128-128-128-10 with ReLU on Fashion-MNIST, with a learning rate that
falls to 0. Training does not read the averages, so each normalization keeps all of them
side by side in one training. At some steps the network is tested with each of them, and
after `kerasnorm.recalibrate` on 2,000 training images.
"""

from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

import kerasnorm
from experiments.arm import Sizes
from experiments.experiment import (
    PAPER_SEEDS,
    Experiment,
    Finding,
    Number,
    column,
    mean_and_range,
)
from experiments.lab import Lab, Measurement
from experiments.nets import seed_of
from experiments.significance import paired_difference, sign_test
from experiments.trainer import Plan, Trainer, accuracy_on

AVERAGES: dict[str, dict[str, Any]] = {
    **{f"exponential {m:g}": {"momentum": m} for m in (0.9, 0.99, 0.999)},
    **{
        f"debiased {m:g}": {"momentum": m, "moving_average": "debiased"}
        for m in (0.9, 0.99, 0.999)
    },
    "cumulative": {"moving_average": "cumulative"},
}
MEASURED = (*AVERAGES, "recalibrated")
USUAL, MENDED = "exponential 0.99", "debiased 0.99"
EARLY, JUDGED_BATCH = 100, 32
SAME = 0.25  # points between what counts as equally good


@dataclass(frozen=True)
class Config(Sizes):
    """The sizes. `batch_size` is that of the batches that are judged."""

    width: int = 128
    batch_sizes: tuple[int, ...] = (8, 32)
    at: tuple[int, ...] = (50, 100, 200, 500, 1_000, 2_000)
    early: int = EARLY
    images: int = 2_000  # that recalibrate
    test_images: int = 5_000
    steps: int = 2_000
    batch_size: int = JUDGED_BATCH
    tuning_steps: int = 2_000
    every: int = 50
    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1)
    seeds: tuple[int, ...] = PAPER_SEEDS


QUICK = Config(
    width=8,
    batch_sizes=(8,),
    batch_size=8,
    at=(10, 20),
    early=10,
    images=100,
    test_images=200,
    steps=20,
    tuning_steps=20,
    every=10,
    rates=(0.03,),
    seeds=(11, 12, 13),
)


class Averages(keras.layers.Layer):
    """A batch normalization with all averages side by side, of which one is in use."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.norm = kerasnorm.KBatchNorm()
        self.kept = {
            name: kerasnorm.KBatchNorm(center=False, scale=False, **options)
            for name, options in AVERAGES.items()
        }

    def build(self, input_shape: Any) -> None:
        """Create the statistics."""
        for norm in (self.norm, *self.kept.values()):
            norm.build(input_shape)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Normalize; in training let every average see the batch."""
        if training:
            for norm in self.kept.values():
                norm(inputs, training=True)
        return self.norm(inputs, training=training)

    def use(self, name: str) -> None:
        """Take an average for inference."""
        self.norm.moving_mean.assign(self.kept[name].moving_mean)
        self.norm.moving_variance.assign(self.kept[name].moving_variance)


def network(seed: int, *, width: int) -> keras.Model:
    """Make the network of a seed."""
    images = keras.Input((28, 28, 1))
    x = keras.layers.Flatten()(images)
    for layer in (1, 2, 3):
        kernel = keras.initializers.HeNormal(seed_of(seed, layer))
        x = keras.layers.Dense(width, use_bias=False, kernel_initializer=kernel)(x)
        x = keras.layers.ReLU()(Averages()(x))
    last = keras.initializers.HeNormal(seed_of(seed, 4))
    return keras.Model(images, keras.layers.Dense(10, kernel_initializer=last)(x))


@cache
def trainer(width: int) -> Trainer:
    """Return the trainer, one for all batch sizes."""
    build = partial(network, width=width)
    return Trainer(build, keras.optimizers.SGD(0.1, momentum=0.9))


def use(model: keras.Model, name: str, images: np.ndarray) -> None:
    """Let inference take an average, or statistics that are measured again."""
    if name == "recalibrated":
        kerasnorm.recalibrate(model, images.astype("float32") / 255, verbose=0)
        return
    for layer in model.layers:
        if isinstance(layer, Averages):
            layer.use(name)


def run(lab: Lab, config: Config) -> dict[str, Any]:
    """Tune the rate at every batch size; train with every seed and look at all."""
    data = lab.data("fashion_mnist")
    validation = data.validation.second_half()
    test = data.test.first(config.test_images)

    def plan(size: int, steps: int, rate: float, seed: int) -> Plan:
        return Plan(steps, size, rate, seed, decay=True, every=config.every)

    def score(size: int, rate: float) -> Measurement:
        one = trainer(config.width)
        one.train_to_end(data.train, plan(size, config.tuning_steps, rate, 0))
        use(one.model, "recalibrated", data.train.images[: config.images])
        return {"score": accuracy_on(one, validation)}

    def measure(size: int, rate: float, seed: int) -> Measurement:
        one = trainer(config.width)
        images = data.train.subset(config.images, seed).images
        found: dict[str, list[float]] = {name: [] for name in MEASURED}
        for step in one.train(data.train, plan(size, config.steps, rate, seed)):
            if step in config.at:
                for name in MEASURED:
                    use(one.model, name, images)
                    found[name].append(100 * accuracy_on(one, test))
        return {
            f"{name}, {step} steps": value
            for name, values in found.items()
            for step, value in zip(config.at, values, strict=True)
        }

    def with_size(size: int) -> list[Measurement]:
        key = {"batch": size, "steps": config.steps, "width": config.width}
        rate = lab.tune_rate(key, config.rates, partial(score, size))
        return lab.with_seeds(
            {**key, "rate": rate}, config.seeds, partial(measure, size, rate)
        )

    return {str(size): with_size(size) for size in config.batch_sizes}


def analyse(measured: dict[str, Any], config: Config) -> Finding:
    """Compare the averages early, and at the end."""
    judged = measured[str(config.batch_size)]

    def lead(first: str, second: str, step: int) -> list[float]:
        pair = (column(judged, f"{name}, {step} steps") for name in (first, second))
        return [a - b for a, b in zip(*pair, strict=True)]

    early = {name: lead(name, USUAL, config.early) for name in ("recalibrated", MENDED)}
    wins = {name: sum(x > 0 for x in values) for name, values in early.items()}
    zeros = [0.0] * len(config.seeds)
    end = paired_difference(lead("recalibrated", USUAL, config.steps), zeros)
    seeds = len(config.seeds)
    return Finding(
        holds=all(count == seeds for count in wins.values())
        and -SAME <= end.lower <= end.upper <= SAME,
        measured=f"after {config.early} steps, against {USUAL}: "
        + ", ".join(
            f"{name} is better with {count} of {seeds} seeds"
            for name, count in wins.items()
        )
        + f"; at the end recalibrated minus {USUAL}: {end} points",
        numbers=[
            Number(
                f"test accuracy, batches of {size}, {step} steps, {name}, %",
                mean_and_range(column(rows, f"{name}, {step} steps")),
            )
            for size, rows in measured.items()
            for step in config.at
            for name in MEASURED
        ],
        p=max(sign_test(values) for values in early.values()),
        remark=_remark(measured, config),
    )


def _remark(measured: dict[str, Any], config: Config) -> str:
    """Say how far each average is from recalibrating at the end, at each size."""
    parts = []
    for size, rows in measured.items():
        real = column(rows, f"recalibrated, {config.steps} steps")
        gains = (
            f"{name} {paired_difference(real, found)}"
            for name in (USUAL, "exponential 0.999", "cumulative")
            for found in [column(rows, f"{name}, {config.steps} steps")]
        )
        parts.append(f"batches of {size}: {', '.join(gains)}")
    return (
        "Points that recalibrating gains at the end, no part of the criterion: "
        + "; ".join(parts)
        + "."
    )


def plot(measured: dict[str, Any], figure: Figure) -> None:
    """Draw the accuracy with each average over the steps."""
    panels = figure.subplots(1, len(measured), sharey=True, squeeze=False)[0]
    styles = ("C0:", "C0-", "C0--", "C1:", "C1-", "C1--", "C2-", "k-")
    for axes, (size, rows) in zip(panels, measured.items(), strict=True):
        steps = [
            int(name.split(", ")[1].split()[0])
            for name in rows[0]
            if name.startswith("cumulative, ")
        ]
        for name, style in zip(MEASURED, styles, strict=True):
            means = [np.mean(column(rows, f"{name}, {step} steps")) for step in steps]
            axes.plot(steps, means, style, label=name)
        axes.set(xscale="log", xlabel="steps", title=f"batches of {size}")
        axes.set_xticks(steps, [str(step) for step in steps], fontsize=7)
        axes.minorticks_off()
    panels[0].set(ylabel="test accuracy, %")
    panels[-1].legend(fontsize=7)


N2 = Experiment(
    name="n2",
    title="Which average when",
    claim="Early in a training, statistics that are measured again and a debiased "
    "average are better than the usual exponential one; at the end it makes no "
    "difference.",
    source="Wu & Johnson 2021, arXiv:2105.07576, section 3",
    criterion=f"With batches of {JUDGED_BATCH}, after {EARLY} steps, the test accuracy "
    f"is higher recalibrated and with the average {MENDED} than with {USUAL}, both "
    "with every seed; at the end, after 2,000 steps, the interval of (recalibrated "
    f"minus {USUAL}) lies within ±{SAME} points.",
    full=Config(),
    quick=QUICK,
    run=run,
    analyse=analyse,
    plot=plot,
)
