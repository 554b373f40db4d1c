"""R5: dropout with max-norm regularization beats weight decay.

Srivastava et al. (2014), table 9: 784-1024-1024-2048-10 ReLU networks on all of MNIST;
L2 1.62 %, max-norm 1.35 %, dropout + L2 1.25 %, dropout + max-norm 1.05 % test error.
Here the layers are half as wide and the images are 10,000. So the errors are higher
than the paper's, and only their order and ratio are compared. As in the paper, 0.5 of
the hidden units and 0.2 of the pixels are dropped, and the norms' bound is 3, as in the
authors' code. Every arm has its own learning rate, and its own strength of L2. Gradient
descent with momentum 0.9; the rate falls linearly to 0.

R8 and R9 use these networks too. Their weights stay in the store.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

import kerasnorm
from experiments.experiment import (
    SEEDS,
    TUNING_SEED,
    Experiment,
    Finding,
    Number,
    column,
    mean_and_range,
)
from experiments.lab import Lab, Measurement
from experiments.nets import mlp
from experiments.significance import paired_difference
from experiments.trainer import Plan, Trainer, accuracy, error_percent, loss

PAPER = {
    "L2": 1.62,
    "max-norm": 1.35,
    "dropout + L2": 1.25,
    "dropout + max-norm": 1.05,
}
BEST = "dropout + max-norm"
MOMENTUM = 0.9
NAMES = {"rate": "learning rate", "l2": "L2", "max_norm": "max-norm"}


@dataclass(frozen=True)
class Config:
    """The sizes."""

    subset: int = 10_000
    widths: tuple[int, ...] = (512, 512, 1024)
    steps: int = 4_000
    explored_steps: int = 20_000
    explored_seeds: tuple[int, ...] = SEEDS[:3]
    batch_size: int = 100
    tuning_steps: int = 1_000
    rates: tuple[float, ...] = (0.03, 0.1, 0.3)
    l2: tuple[float, ...] = (1e-4, 1e-3)
    max_norm: tuple[float, ...] = (3.0,)  # as in the authors' code
    validation_images: int = 10_000
    seeds: tuple[int, ...] = SEEDS


FULL = Config()
QUICK = Config(
    subset=500,
    widths=(32, 32),
    # One number of steps for all, so that each network is compiled once.
    steps=50,
    explored_steps=50,
    explored_seeds=(1, 2),
    tuning_steps=50,
    rates=(0.1,),
    l2=(1e-4,),
    validation_images=1_000,
    seeds=(1, 2),
)


@cache
def trainer(
    widths: tuple[int, ...],
    l2: float,
    max_norm: float,
    dropped: bool,
    layer: Callable[..., keras.layers.Layer] = kerasnorm.KDropout,
) -> Trainer:
    """Return the trainer of one of the table's networks."""
    build = partial(
        mlp,
        widths=widths,
        l2=l2,
        max_norm=max_norm,
        rate=0.5 if dropped else 0.0,
        input_rate=0.2 if dropped else 0.0,
        dropout=layer,
    )
    return Trainer(build, keras.optimizers.SGD(0.1, momentum=MOMENTUM))


def choices(arm: str, config: Config) -> Iterator[dict[str, float]]:
    """Yield strengths of the regularization, and learning rates."""
    l2, max_norm = (config.l2, (0.0,)) if "L2" in arm else ((0.0,), config.max_norm)
    for one_l2, one_bound, rate in product(l2, max_norm, config.rates):
        yield {"l2": one_l2, "max_norm": one_bound, "rate": rate}


def network(
    arm: str,
    chosen: dict[str, float],
    config: Config,
    layer: Callable[..., keras.layers.Layer] = kerasnorm.KDropout,
) -> Trainer:
    """Return the trainer of an arm with the settings that tuning has chosen."""
    dropped = arm.startswith("dropout")
    return trainer(config.widths, chosen["l2"], chosen["max_norm"], dropped, layer)


def plan(config: Config, rate: float, seed: int, steps: int | None = None) -> Plan:
    """Return how a network is trained."""
    steps = steps or config.steps
    return Plan(steps, config.batch_size, rate, seed, decay=True, every=min(steps, 500))


def tuned(
    lab: Lab,
    arm: str,
    config: Config,
    layer: Callable[..., keras.layers.Layer] = kerasnorm.KDropout,
) -> dict[str, float]:
    """Return the settings of an arm that are best on validation data."""
    data = lab.data("mnist")

    def measure(chosen: Any) -> Measurement:
        trained = network(arm, chosen, config, layer)
        trained.train_to_end(
            data.train.subset(config.subset, TUNING_SEED),
            plan(config, chosen["rate"], TUNING_SEED, config.tuning_steps),
        )
        watched = data.validation.first(config.validation_images)
        return {"score": accuracy(trained.outputs(watched.images), watched.labels)}

    key = {"arm": arm, "steps": config.tuning_steps, "subset": config.subset}
    return lab.tune(key, choices(arm, config), measure)


def fit(
    lab: Lab,
    arm: str,
    seed: int,
    config: Config,
    layer: Callable[..., keras.layers.Layer] = kerasnorm.KDropout,
) -> Trainer:
    """Train an arm to the end."""
    chosen = tuned(lab, arm, config, layer)
    one = network(arm, chosen, config, layer)
    one.train_to_end(
        lab.data("mnist").train.subset(config.subset, seed),
        plan(config, chosen["rate"], seed),
    )
    return one


def trained(
    lab: Lab,
    arm: str,
    seed: int,
    config: Config,
    layer: Callable[..., keras.layers.Layer] = kerasnorm.KDropout,
) -> Measurement:
    """Return the test error of an arm, and keep the weights."""
    test = lab.data("mnist").test

    def measure() -> Measurement:
        one = fit(lab, arm, seed, config, layer)
        one.model.save_weights(lab.weights(f"{arm}-{seed}"))
        logits = one.outputs(test.images)
        return {
            "test_error": 100 * (1 - accuracy(logits, test.labels)),
            "test_loss": loss(logits, test.labels),
        }

    key = {"arm": arm, "seed": seed, "steps": config.steps, "subset": config.subset}
    return lab.once({**key, **tuned(lab, arm, config, layer)}, measure)


def kept(lab: Lab, arm: str, seed: int, config: Config) -> Trainer:
    """Return a trained network; train it again if its weights are gone.

    With another version of a library its roundings, and so its error, may differ from
    those of the network that the store has measured.
    """
    trained(lab, arm, seed, config)
    path = lab.weights(f"{arm}-{seed}")
    if path.exists():
        one = network(arm, tuned(lab, arm, config), config)
        one.model.load_weights(path)
        return one
    one = fit(lab, arm, seed, config)
    one.model.save_weights(path)
    return one


def explore(lab: Lab, arm: str, seed: int, config: Config) -> Measurement:
    """Return the test error of an arm that is trained for longer."""
    longer = replace(config, steps=config.explored_steps)

    def measure() -> Measurement:
        one = fit(lab, arm, seed, longer)
        return {"test_error": error_percent(one, lab.data("mnist").test)}

    key = {"explored": True, "arm": arm, "seed": seed, "steps": longer.steps}
    return lab.once({**key, **tuned(lab, arm, config)}, measure)


def run(lab: Lab, config: Config) -> dict[str, Any]:
    """Tune every arm and train it with every seed."""
    return {
        "chosen": {arm: tuned(lab, arm, config) for arm in PAPER},
        "arms": {
            arm: [trained(lab, arm, seed, config) for seed in config.seeds]
            for arm in PAPER
        },
        "explored": {
            arm: [explore(lab, arm, seed, config) for seed in config.explored_seeds]
            for arm in ("L2", BEST)
        },
    }


def analyse(measured: dict[str, Any], config: Config) -> Finding:
    """Compare the errors of dropout + max-norm and of L2."""
    errors = {arm: column(measured["arms"][arm], "test_error") for arm in PAPER}
    gain = paired_difference(errors["L2"], errors[BEST])
    relative = gain.mean / float(np.mean(errors["L2"]))
    return Finding(
        holds=gain.lower > 0 and relative >= 0.1,
        measured=f"L2 minus {BEST}: {gain} points, {100 * relative:.0f} % of the error "
        "with L2",
        numbers=[
            Number(f"test error, {arm}, %", mean_and_range(errors[arm]), f"{paper}")
            for arm, paper in PAPER.items()
        ]
        + [
            Number(f"chosen for {arm}", _settings(measured["chosen"][arm]))
            for arm in PAPER
        ],
        p=gain.p_greater,
        remark=f"Tried after this result, and no part of the criterion: "
        f"{config.explored_steps:,} steps instead of {config.steps:,}, with the same "
        f"settings and {len(config.explored_seeds)} seeds. "
        + "; ".join(
            f"{arm}: {mean_and_range(column(results, 'test_error'))} %"
            for arm, results in measured["explored"].items()
        )
        + ".",
    )


def _settings(chosen: dict[str, float]) -> str:
    return ", ".join(f"{NAMES[k]} {value:g}" for k, value in chosen.items() if value)


def plot(measured: dict[str, Any], figure: Figure) -> None:
    """Draw the errors of the arms, and the paper's."""
    axes = figure.subplots()
    for position, (arm, paper) in enumerate(PAPER.items()):
        errors = column(measured["arms"][arm], "test_error")
        axes.plot([position] * len(errors), errors, "C0o", alpha=0.6)
        axes.plot(position, np.mean(errors), "C0_", markersize=30)
        axes.plot(position, paper, "C1x")
    axes.plot([], [], "C0o", label="ours: 10,000 images, half the width")
    axes.plot([], [], "C1x", label="paper: 60,000 images")
    axes.set_xticks(range(len(PAPER)), list(PAPER))
    axes.set(ylabel="test error, %", ylim=(0, None))
    axes.legend()


R5 = Experiment(
    name="r5",
    title="Dropout with max-norm",
    claim="Dropout with max-norm regularization generalizes better than L2.",
    source="Srivastava et al. 2014, section 6.5, table 9",
    criterion="The interval of (error with L2 minus error with dropout and max-norm) "
    "lies above 0, and the mean is at least 10 % of L2's error.",
    full=FULL,
    quick=QUICK,
    run=run,
    analyse=analyse,
    plot=plot,
)
