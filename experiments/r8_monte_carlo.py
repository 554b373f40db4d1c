"""R8: averaging over thinned networks, and weight scaling instead.

Srivastava et al. (2014), section 7.5, figure 11: the test error when the predictions of
k sampled networks are averaged reaches that of weight scaling at about k = 50 and is
slightly better from there. Ma et al. (2017) found 1.04 % with k = 100 beside 1.19 %.
The networks are those of R5 with dropout and max-norm. Each image has 100 draws. They
are averaged in 100 // k groups of k, and the error is the mean over the groups.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

import kerasnorm
from experiments import r5_max_norm_and_dropout as r5
from experiments.data import Split
from experiments.experiment import Experiment, Finding, Number, column, mean_and_range
from experiments.lab import Lab, Measurement
from experiments.significance import paired_difference
from experiments.trainer import FORWARD_BATCH, Trainer

MARGIN = 0.15  # points


@dataclass(frozen=True)
class Config:
    """The sizes."""

    nets: r5.Config = r5.FULL
    draws: int = 100
    averaged: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100)
    compared: int = 50


def run(lab: Lab, config: Config) -> dict[str, Any]:
    """Draw for every network of R5."""
    nets = lab.of("r5", asdict(config.nets))
    data = lab.data("mnist").test

    def measure(seed: int) -> Measurement:
        trainer = r5.kept(nets, r5.BEST, seed, config.nets)
        draws = sample(trainer, data, config.draws)
        return {
            "errors": [group_error(draws, data, k) for k in config.averaged],
            "scaled": r5.error_percent(trainer, data),
        }

    key = {"draws": config.draws, "averaged": config.averaged}
    key |= {"steps": config.nets.steps, "subset": config.nets.subset}
    return {
        "averaged": config.averaged,
        "networks": lab.with_seeds(key, config.nets.seeds, measure),
    }


@cache
def thinned(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """Compile the probabilities of one draw, once for all seeds."""

    @tf.function(jit_compile=True)
    def draw(images: tf.Tensor) -> tf.Tensor:
        x = tf.cast(images, tf.float32) / 255
        return tf.nn.softmax(model(x, training=False))

    return draw


def sample(trainer: Trainer, data: Split, draws: int) -> np.ndarray:
    """Return probabilities of thinned networks, of shape (draws, images, classes)."""
    model = trainer.model
    draw = thinned(model)
    dropouts = [x for x in model.layers if isinstance(x, kerasnorm.KDropout)]
    batches = [
        tf.constant(data.images[i : i + FORWARD_BATCH])
        for i in range(0, len(data), FORWARD_BATCH)
    ]
    for layer in dropouts:
        layer.monte_carlo = True
    try:
        return np.stack(
            [np.concatenate([draw(batch) for batch in batches]) for _ in range(draws)]
        )
    finally:
        for layer in dropouts:
            layer.monte_carlo = False


def group_error(draws: np.ndarray, data: Split, averaged: int) -> float:
    """Return the error in percent of the means of `averaged` draws, over all groups."""
    groups = len(draws) // averaged
    means = draws[: groups * averaged].reshape(groups, averaged, *draws.shape[1:])
    answers = means.mean(axis=1, dtype="float64").argmax(axis=-1)
    return float(100 * np.mean(answers != data.labels))


def analyse(measured: dict[str, Any], config: Config) -> Finding:
    """Compare one draw, and fifty, with weight scaling."""
    errors = np.array(column(measured["networks"], "errors"))
    scaled = np.array(column(measured["networks"], "scaled"))
    one = errors[:, config.averaged.index(1)]
    worse = int(np.sum(one > scaled))
    compared = config.averaged.index(config.compared)
    fifty = paired_difference(errors[:, compared].tolist(), scaled.tolist())
    return Finding(
        holds=worse == len(scaled) and -MARGIN <= fifty.lower <= fifty.upper <= MARGIN,
        measured=f"one draw is worse with {worse} of {len(scaled)} seeds; "
        f"{config.compared} draws minus weight scaling: {fifty} points",
        numbers=[
            Number(
                "test error, weight scaling, %",
                mean_and_range(scaled.tolist()),
                "1.19 (Ma et al.)",
            ),
            *(
                Number(
                    f"test error, mean of {k} draws, %"
                    if k > 1
                    else "test error, one draw, %",
                    mean_and_range(errors[:, i].tolist()),
                    "1.04 (Ma et al.)" if k == 100 else "",
                )
                for i, k in enumerate(config.averaged)
            ),
        ],
    )


def plot(measured: dict[str, Any], figure: Figure) -> None:
    """Draw figure 11: the error over the number of draws."""
    axes = figure.subplots()
    errors = np.array(column(measured["networks"], "errors"))
    scaled = np.mean(column(measured["networks"], "scaled"))
    mean = errors.mean(axis=0)
    axes.errorbar(
        measured["averaged"],
        mean,
        errors.std(axis=0, ddof=1),
        fmt="o-",
        capsize=3,
        label="mean of k draws",
    )
    axes.axhline(scaled, color="C0", linestyle="--", label="weight scaling")
    axes.axhline(1.19, color="C1", linestyle="--", label="weight scaling, Ma et al.")
    axes.plot(100, 1.04, "C1x", label="mean of 100 draws, Ma et al.")
    axes.set(xscale="log", xlabel="k", ylabel="test error, %")
    axes.legend()


R8 = Experiment(
    name="r8",
    title="Monte Carlo averaging and weight scaling",
    claim="Weight scaling is a good approximation of averaging over thinned networks.",
    source="Srivastava et al. 2014, section 7.5, figure 11",
    criterion="One draw is worse than weight scaling with every seed, and the interval "
    "of (error of 50 draws minus error of weight scaling) lies within "
    f"±{MARGIN} points.",
    full=Config(),
    quick=Config(nets=r5.QUICK, draws=4, averaged=(1, 2, 4), compared=4),
    run=run,
    analyse=analyse,
    plot=plot,
)
