"""N3: what Monte Carlo dropout gives to the probabilities, and what else does.

Gal & Ghahramani (2016), arXiv:1506.02142: the mean over dropout's masks is a better
calibrated answer than one pass, and its spread shows what the network does not know.
Guo et al. (2017), arXiv:1706.04599: dividing the logits by one temperature, chosen on
validation images, calibrates a network. Lakshminarayanan et al. (2017),
arXiv:1612.01474: so does the mean of a few networks trained by themselves.

Networks of 784-128-128-10 with ReLU learn 10,000 images of Fashion-MNIST, with dropout
of 0.2 and 0.5 or without. Measured on test images: the accuracy; the negative log
likelihood (NLL); the expected calibration error (ECE) with 15 bins; and how well the
entropy, or the mutual information, tells Fashion-MNIST from MNIST (AUROC).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from scipy.stats import rankdata

from experiments.arm import Sizes
from experiments.data import Split
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
from experiments.nets import mlp
from experiments.r8_monte_carlo import sample
from experiments.significance import paired_difference, sign_test
from experiments.trainer import Plan, Trainer, accuracy_on, loss

RATES = {"dropout": (0.2, 0.5), "plain": (0.0, 0.0)}  # of the inputs, hidden units
BINS = 15
MEASURES = {"accuracy": "%", "NLL": "nats", "ECE": "points", "AUROC": ""}
MEMBER = 100  # between the seeds of two members of an ensemble


@dataclass(frozen=True)
class Config(Sizes):
    """The sizes."""

    width: int = 128
    images: int = 10_000
    test_images: int = 5_000
    averaged: tuple[int, ...] = (1, 2, 5, 10, 20, 50)
    members: int = 3
    steps: int = 2_000
    batch_size: int = 100
    tuning_steps: int = 2_000
    every: int = 1_000
    rates: tuple[float, ...] = (0.01, 0.03, 0.1)
    seeds: tuple[int, ...] = PAPER_SEEDS


QUICK = Config(
    width=16,
    images=200,
    test_images=200,
    averaged=(1, 2),
    members=2,
    steps=20,
    tuning_steps=20,
    every=20,
    rates=(0.03,),
    seeds=(11, 12, 13),
)


@cache
def trainer(width: int, arm: str) -> Trainer:
    """Return the trainer of the networks with dropout, or without."""
    input_rate, rate = RATES[arm]
    build = partial(mlp, widths=(width, width), input_rate=input_rate, rate=rate)
    return Trainer(build, keras.optimizers.SGD(0.1, momentum=0.9))


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Return the entropy in nats over the last axis."""
    q = probabilities.astype("float64")
    return -np.sum(q * np.log(np.maximum(q, 1e-300)), axis=-1)


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the ECE in points: |confidence - accuracy| over the bins, by their size.

    The bins of the largest probability are equally wide (Guo et al. 2017, eq. 3).
    """
    confidence = probabilities.max(axis=-1).astype("float64")
    surplus = confidence - (probabilities.argmax(axis=-1) == labels)
    bins = np.clip(np.ceil(confidence * BINS), 1, BINS).astype(int)
    sums = np.bincount(bins, weights=surplus, minlength=BINS + 1)
    return float(100 * np.abs(sums).sum() / len(labels))


def auroc(known: np.ndarray, foreign: np.ndarray) -> float:
    """Return how often a foreign image has the higher score; ties count half."""
    ranks = rankdata(np.concatenate([known, foreign]))[len(known) :]
    smaller = ranks.sum() - len(foreign) * (len(foreign) + 1) / 2
    return float(smaller / (len(known) * len(foreign)))


def best_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature with the least loss."""
    found = minimize_scalar(
        lambda log_t: loss(logits / np.exp(log_t), labels),
        bounds=(-3, 3),
        method="bounded",
    )
    return float(np.exp(found.x))


def judge(name: str, known: np.ndarray, foreign: np.ndarray, test: Split) -> Any:
    """Measure the mean over draws or members, (draws, images, classes)."""
    mean, mean_foreign = known.mean(0, "float64"), foreign.mean(0, "float64")
    own = np.take_along_axis(mean, test.labels[:, None], axis=-1)
    found = {
        "accuracy": float(100 * np.mean(mean.argmax(-1) == test.labels)),
        "NLL": float(-np.log(np.maximum(own, 1e-300)).mean()),
        "ECE": calibration_error(mean, test.labels),
        "AUROC": auroc(entropy(mean), entropy(mean_foreign)),
    }
    if len(known) > 1:
        found["AUROC by mutual information"] = auroc(
            *(entropy(q.mean(0)) - entropy(q).mean(0) for q in (known, foreign))
        )
    return {f"{name}, {what}": value for what, value in found.items()}


def arms(config: Config) -> list[str]:
    """Return what is compared, in the order of the table."""
    return [
        "plain",
        "plain, temperature",
        f"{config.members} plain networks",
        "dropout off",
        "dropout off, temperature",
        *(mean_of(k) for k in config.averaged),
    ]


def mean_of(masks: int) -> str:
    """Return the name of an average over masks."""
    return f"{masks} masks" if masks > 1 else "1 mask"


def run(lab: Lab, config: Config) -> dict[str, Any]:
    """Tune both kinds of networks, train them and judge their probabilities."""
    data = lab.data("fashion_mnist")
    validation = data.validation.second_half()
    test = data.test.first(config.test_images)
    foreign = lab.data("mnist").test.first(config.test_images)

    def train(arm: str, steps: int, rate: float, seed: int) -> Trainer:
        plan = Plan(steps, config.batch_size, rate, seed, True, config.every)
        images = data.train.subset(config.images, seed % MEMBER)  # the ensemble's
        return trainer(config.width, arm).train_to_end(images, plan)

    def score(arm: str, rate: float) -> Measurement:
        one = train(arm, config.tuning_steps, rate, TUNING_SEED)
        return {"score": accuracy_on(one, validation)}

    def tuned(arm: str) -> float:
        key = {"arm": arm, "steps": config.tuning_steps, "width": config.width}
        return lab.tune_rate(key, config.rates, partial(score, arm))

    def logits(one: Trainer) -> list[np.ndarray]:
        return [one.outputs(part.images) for part in (validation, test, foreign)]

    def one_network(name: str, outputs: Sequence[np.ndarray]) -> Measurement:
        held, known, other = outputs
        t = best_temperature(held, validation.labels)
        return {
            "temperature": t,
            **judged(name, [known], [other]),
            **judged(f"{name}, temperature", [known / t], [other / t]),
        }

    def judged(name: str, known: Any, other: Any) -> Measurement:
        return judge(name, softmax(known, axis=-1), softmax(other, axis=-1), test)

    def plain(rate: float, seed: int) -> Measurement:
        seeds = [seed + MEMBER * i for i in range(config.members)]
        outputs = [logits(train("plain", config.steps, rate, s)) for s in seeds]
        _, known, other = zip(*outputs, strict=True)
        together = judged(f"{config.members} plain networks", known, other)
        return {**one_network("plain", outputs[0]), **together}

    def dropout(rate: float, seed: int) -> Measurement:
        one = train("dropout", config.steps, rate, seed)
        found = one_network("dropout off", logits(one))
        draws = [sample(one, part, max(config.averaged)) for part in (test, foreign)]
        for k in config.averaged:
            found |= judge(mean_of(k), draws[0][:k], draws[1][:k], test)
        return found

    def with_seeds(arm: str, measure: Any) -> list[Measurement]:
        key = {"arm": arm, "steps": config.steps, "width": config.width}
        rate = tuned(arm)
        key |= {"rate": rate}
        return lab.with_seeds(key, config.seeds, partial(measure, rate))

    return {
        "plain": with_seeds("plain", plain),
        "dropout": with_seeds("dropout", dropout),
    }


def values(measured: dict[str, Any], arm: str, what: str) -> list[float]:
    """Return a measure of an arm, seed by seed."""
    kind = "plain" if "plain" in arm else "dropout"
    return column(measured[kind], f"{arm}, {what}")


def analyse(measured: dict[str, Any], config: Config) -> Finding:
    """Compare the mean over the most masks with the same network's dropout off."""
    many = mean_of(max(config.averaged))

    def difference(first: str, second: str, what: str) -> list[float]:
        pair = (values(measured, arm, what) for arm in (first, second))
        return [a - b for a, b in zip(*pair, strict=True)]

    better = {
        "NLL is lower": difference("dropout off", many, "NLL"),
        "AUROC is higher": difference(many, "dropout off", "AUROC"),
    }
    wins = {what: sum(x > 0 for x in values) for what, values in better.items()}
    seeds = len(config.seeds)
    others = "; ".join(
        f"{what} against {arm}: "
        + str(
            paired_difference(values(measured, many, what), values(measured, arm, what))
        )
        for arm in arms(config)[:5]
        for what in ("NLL", "AUROC")
    )
    return Finding(
        holds=all(count == seeds for count in wins.values()),
        measured=f"{many} against dropout off: "
        + ", ".join(f"the {w} with {n} of {seeds} seeds" for w, n in wins.items()),
        numbers=_table(measured, config),
        p=max(sign_test(values) for values in better.values()),
        remark=f"Differences of {many}, no part of the criterion: {others}.",
    )


def _table(measured: dict[str, Any], config: Config) -> list[Number]:
    numbers = [
        Number(
            f"{what}, {arm}" + (f", {unit}" if unit else ""),
            mean_and_range(
                values(measured, arm, what), 2 if unit in ("%", "points") else 3
            ),
        )
        for what, unit in MEASURES.items()
        for arm in arms(config)
    ]
    several = (f"{config.members} plain networks", mean_of(max(config.averaged)))
    what = "AUROC by mutual information"
    return numbers + [
        Number(f"{what}, {arm}", mean_and_range(values(measured, arm, what), 3))
        for arm in several
    ]


def plot(measured: dict[str, Any], figure: Figure) -> None:
    """Draw every measure over the number of masks, and what it is without them."""
    row = measured["dropout"][0]
    masks = [int(n.split()[0]) for n in row if n.endswith((" masks, NLL", "mask, NLL"))]
    lines = [n.rsplit(", ", 1)[0] for n in measured["plain"][0] if n.endswith(", NLL")]
    lines += ["dropout off", "dropout off, temperature"]
    styles = ("C0-", "C0--", "C2-", "C1-", "C1--")
    panels = figure.subplots(1, len(MEASURES))
    for axes, (what, unit) in zip(panels, MEASURES.items(), strict=True):
        means = [np.mean(values(measured, mean_of(k), what)) for k in masks]
        axes.plot(masks, means, "ko-", ms=4, label="k masks")
        for line, style in zip(lines, styles, strict=True):
            axes.axhline(
                np.mean(values(measured, line, what)),
                color=style[:2],
                linestyle=style[2:],
                label=line,
            )
        title = f"{what}, {unit}" if unit else what
        axes.set(xscale="log", xlabel="k")
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=7)
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=3,
        fontsize=7,
    )


N3 = Experiment(
    name="n3",
    title="Uncertainty by masks, temperature and ensembles",
    claim="The mean over dropout's masks has better probabilities than one pass with "
    "dropout off, and tells foreign images better.",
    source="Gal & Ghahramani 2016, arXiv:1506.02142; beside it Guo et al. 2017, "
    "arXiv:1706.04599, and Lakshminarayanan et al. 2017, arXiv:1612.01474",
    criterion="With 50 masks, with every seed, the test NLL is lower, and the AUROC of "
    "the entropy for MNIST among Fashion-MNIST higher, than of the same network with "
    "dropout off.",
    full=Config(),
    quick=QUICK,
    run=run,
    analyse=analyse,
    plot=plot,
)
