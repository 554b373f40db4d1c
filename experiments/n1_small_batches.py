"""N1: batches of few samples, without normalization and with three kinds of it.

Ioffe (2017), arXiv:1702.03275, and Wu & He (2018), arXiv:1803.08494: batch
normalization loses accuracy when a batch has few samples, and batch renormalization
loses less. The network is 784-128-128-128-10 with ReLU on Fashion-MNIST. Every arm has
its own learning rate for every batch size, chosen on validation images.

Each network is tested at inference; with the statistics of test batches as large as
those of the training; and at inference after `kerasnorm.recalibrate`. The last tells
whether the moving statistics are to blame.

Ghost batches (Hoffer et al. 2017, arXiv:1705.08741) go the other way: here a batch of
64 is normalized in ghost batches of 2, 8 and 32, and whole (0 in the keys). They are
reported, not judged. Batches that are synchronized over replicas need no run: they
equal one large batch exactly (`tests/kerasnorm/backend/test_replicas.py`).
"""

from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
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
from experiments.significance import paired_difference, sign_test
from experiments.trainer import Plan, Trainer, accuracy, accuracy_on

ARMS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "batch norm": {},
    "renorm": {
        "renorm": True,
        "renorm_clipping": {"rmax": 3.0, "rmin": 1 / 3, "dmax": 5.0},
    },
}
LABELS = {
    "inference": "at inference",
    "batches": "with the batches' statistics",
    "recalibrated": "recalibrated",
}
KINDS = tuple(LABELS)
SMALLEST, SECOND = 2, 4
SAME = 1.0  # points between what counts as equally good


@dataclass(frozen=True)
class Config(Sizes):
    """The sizes. `batch_size` is that of the batches with ghost batches."""

    width: int = 128
    batch_sizes: tuple[int, ...] = (2, 4, 8, 16, 32)
    recalibration_images: int = 2_000
    steps: int = 4_000
    batch_size: int = 64
    tuning_steps: int = 2_000
    every: int = 1_000
    rates: tuple[float, ...] = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
    seeds: tuple[int, ...] = PAPER_SEEDS
    ghosts: tuple[int, ...] = (2, 8, 32)
    ghost_seeds: tuple[int, ...] = (11, 12, 13)


QUICK = Config(
    width=16,
    batch_sizes=(2, 4),
    batch_size=8,
    steps=20,
    tuning_steps=20,
    every=20,
    rates=(0.01,),
    recalibration_images=100,
    seeds=(11, 12, 13),
    ghosts=(2,),
    ghost_seeds=(11,),
)


def network(
    seed: int, *, width: int, norm: dict[str, Any] | None, ghost: int = 0
) -> keras.Model:
    """Make the network, with the options of its normalization."""
    images = keras.Input((28, 28, 1))
    x = keras.layers.Flatten()(images)
    for layer in (1, 2, 3):
        x = keras.layers.Dense(
            width,
            use_bias=norm is None,
            kernel_initializer=keras.initializers.HeNormal(seed_of(seed, layer)),
        )(x)
        if norm is not None:
            x = batch_norm(virtual_batch_size=ghost or None, **norm)(x)
        x = keras.layers.ReLU()(x)
    last = keras.initializers.HeNormal(seed_of(seed, 4))
    return keras.Model(images, keras.layers.Dense(10, kernel_initializer=last)(x))


@cache
def trainer(width: int, arm: str, ghost: int = 0) -> Trainer:
    """Return the trainer of an arm."""
    build = partial(network, width=width, norm=ARMS[arm], ghost=ghost)
    return Trainer(build, keras.optimizers.SGD(0.1, momentum=0.9))


def run(lab: Lab, config: Config) -> dict[str, Any]:
    """Tune and train every arm at every batch size, and the ghost batches."""
    data = lab.data("fashion_mnist")
    validation = data.validation.second_half()

    def score(network: Trainer) -> Measurement:
        return {"score": accuracy_on(network, validation)}

    def measure(network: Trainer, size: int, normalized: bool) -> Measurement:
        found = {"inference": 100 * accuracy_on(network, data.test)}
        if not normalized:
            return found
        test = data.test.first(len(data.test) // size * size)
        in_batches = logits_in_batches(network.model, test.images, size)
        found["batches"] = 100 * accuracy(in_batches, test.labels)
        images = data.train.subset(config.recalibration_images, network.seed).images
        kerasnorm.recalibrate(network.model, images.astype("float32") / 255, verbose=0)
        return {**found, "recalibrated": 100 * accuracy_on(network, data.test)}

    def arm(name: str, size: int, ghost: int, seeds: Any) -> list[Measurement]:
        def train(plan: Plan) -> Trainer:
            one = trainer(config.width, name, ghost)
            return one.train_to_end(data.train, plan)

        key = {"arm": name, "batch": size, "ghost": ghost, "width": config.width}
        of_size = replace(config, batch_size=size)
        normalized = ARMS[name] is not None
        return Arm(lab, of_size, key, train, score).with_seeds(
            partial(measure, size=size, normalized=normalized), seeds=seeds
        )

    large = config.batch_size
    return {
        "batch_sizes": config.batch_sizes,
        "ghosts": config.ghosts,
        **{
            name: [arm(name, size, 0, config.seeds) for size in config.batch_sizes]
            for name in ARMS
        },
        "ghost": [
            arm("batch norm", large, ghost, config.ghost_seeds)
            for ghost in (*config.ghosts, 0)
        ],
    }


def logits_in_batches(model: keras.Model, images: np.ndarray, size: int) -> np.ndarray:
    """Return the logits as in training, in batches of a size. No statistic changes."""
    kept = [v.numpy() for v in model.non_trainable_variables]
    outputs = _in_batches(model, size)(images)
    for variable, value in zip(model.non_trainable_variables, kept, strict=True):
        variable.assign(value)
    return outputs.numpy()


@cache
def _in_batches(model: keras.Model, size: int) -> Any:
    @tf.function
    def logits(images: tf.Tensor) -> tf.Tensor:
        batches = tf.reshape(images, (-1, size, 28, 28, 1))
        outputs = tf.map_fn(
            lambda x: model(tf.cast(x, tf.float32) / 255, training=True),
            batches,
            fn_output_signature=tf.TensorSpec((size, 10)),
        )
        return tf.reshape(outputs, (-1, 10))

    return logits


def values(measured: dict[str, Any], arm: str, index: int, kind: str) -> list[float]:
    """Return an arm's accuracies at a batch size, seed by seed."""
    return column(measured[arm][index], kind)


def analyse(measured: dict[str, Any], config: Config) -> Finding:
    """Compare the arms at the smallest batches, and at the largest."""
    sizes = config.batch_sizes

    def lead(first: str, second: str, index: int) -> list[float]:
        pair = (values(measured, arm, index, "inference") for arm in (first, second))
        return [a - b for a, b in zip(*pair, strict=True)]

    leads = {
        f"none above batch norm at {sizes[0]}": lead("none", "batch norm", 0),
        f"renorm above batch norm at {sizes[0]}": lead("renorm", "batch norm", 0),
        f"renorm above batch norm at {sizes[1]}": lead("renorm", "batch norm", 1),
    }
    seeds = len(config.seeds)
    wins = {what: sum(x > 0 for x in lead) for what, lead in leads.items()}
    large = paired_difference(
        values(measured, "renorm", -1, "inference"),
        values(measured, "batch norm", -1, "inference"),
    )
    return Finding(
        holds=all(count == seeds for count in wins.values())
        and -SAME <= large.lower <= large.upper <= SAME,
        measured=", ".join(f"{w} with {n} of {seeds} seeds" for w, n in wins.items())
        + f"; renorm minus batch norm at {sizes[-1]}: {large} points",
        numbers=[*_table(measured, config), *_ghosts(measured, config)],
        p=max(sign_test(lead) for lead in leads.values()),
        remark=_remark(measured, config),
    )


def _table(measured: dict[str, Any], config: Config) -> list[Number]:
    return [
        Number(
            f"test accuracy, batches of {size}, {arm}"
            + (f", {LABELS[kind]}" if ARMS[arm] is not None else "")
            + ", %",
            mean_and_range(values(measured, arm, i, kind)),
        )
        for i, size in enumerate(config.batch_sizes)
        for arm in ARMS
        for kind in (KINDS if ARMS[arm] is not None else KINDS[:1])
    ]


def _ghosts(measured: dict[str, Any], config: Config) -> list[Number]:
    names = [f"ghost batches of {size}" for size in config.ghosts]
    return [
        Number(
            f"test accuracy, batches of {config.batch_size}, {name}, at inference, %",
            mean_and_range(values(measured, "ghost", i, "inference")),
        )
        for i, name in enumerate([*names, "whole"])
    ]


def _remark(measured: dict[str, Any], config: Config) -> str:
    gains = "; ".join(
        f"{arm} at {size}: "
        + str(
            paired_difference(
                values(measured, arm, i, "recalibrated"),
                values(measured, arm, i, "inference"),
            )
        )
        for arm in ("batch norm", "renorm")
        for i, size in enumerate(config.batch_sizes[:2])
    )
    return (
        f"Points that recalibrating gains, no part of the criterion: {gains}. Ghost "
        f"batches have {len(config.ghost_seeds)} seeds and are not judged."
    )


def plot(measured: dict[str, Any], figure: Figure) -> None:
    """Draw the accuracy over the batch size, and over the size of ghost batches."""
    left, right = figure.subplots(1, 2, sharey=True)
    sizes = measured["batch_sizes"]
    for colour, arm in enumerate(ARMS):
        for kind, style in zip(KINDS, ("o-", "x:", "+--"), strict=True):
            if kind not in measured[arm][0][0]:
                continue
            means = [np.mean(values(measured, arm, i, kind)) for i in range(len(sizes))]
            label = f"{arm}, {LABELS[kind]}" if ARMS[arm] is not None else arm
            left.plot(sizes, means, style, color=f"C{colour}", label=label)
    left.set(xscale="log", xlabel="samples in a batch", ylabel="test accuracy, %")
    ghosts = [np.mean(column(seeds, "inference")) for seeds in measured["ghost"]]
    right.plot(measured["ghosts"], ghosts[:-1], "o-", color="C1", label="ghost batches")
    right.axhline(ghosts[-1], color="C1", linestyle="--", label="the batch whole")
    right.set(xscale="log", xlabel="samples in a ghost batch")
    for axes in (left, right):
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.legend(fontsize=7)


N1 = Experiment(
    name="n1",
    title="Small batches",
    claim="With very few samples in a batch a network is worse with batch "
    "normalization than without, and better with batch renormalization.",
    source="Ioffe 2017, arXiv:1702.03275; Wu & He 2018, arXiv:1803.08494",
    criterion="Test accuracy at inference, with every seed: with batches of "
    f"{SMALLEST} it is lower with batch normalization than without; with batches of "
    f"{SMALLEST} and of {SECOND} it is higher with renormalization than with batch "
    "normalization. With batches of 32 the interval of (renormalization minus batch "
    f"normalization) lies within ±{SAME:g} point.",
    full=Config(),
    quick=QUICK,
    run=run,
    analyse=analyse,
    plot=plot,
)
