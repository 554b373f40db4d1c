"""R11: the identities that the papers derive hold for the layers.

Srivastava et al. (2014), section 9.1 (dropout in linear regression is ridge regression
in expectation) and section 10 (the two forms of dropout). Li et al. (2018),
arXiv:1801.05134, section 3.1: how dropout changes a variance. Ioffe & Szegedy (2015),
Alg. 2 (the unbiased variance) and section 3.3 (what the scale of the weights does not
change).

An expectation is compared with a Monte Carlo mean, in standard errors of that mean. An
identity is computed both ways in float64, and the largest relative error counts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

import kerasnorm
from experiments.experiment import Experiment, Finding, Number
from experiments.lab import Lab, Measurement
from kerasnorm import functional

STANDARD_ERRORS = 4.0
TOLERANCE = 1e-6
RATE = 0.2  # not 0.5, where the fraction kept equals the fraction dropped
KEEP = functional.keep_fraction(RATE)


@dataclass(frozen=True)
class Config:
    """The sizes."""

    repetitions: int = 400
    samples: int = 5_000
    steps: int = 20


def compare(values: np.ndarray, expected: float) -> Measurement:
    """Compare a Monte Carlo mean with its expectation."""
    error = values.std(ddof=1) / math.sqrt(len(values))
    return {
        "mean": float(values.mean()),
        "expected": float(expected),
        "standard_errors": float(abs(values.mean() - expected) / error),
    }


def relative_error(first: Any, second: Any) -> Measurement:
    """Return the largest difference, as a fraction of the largest value."""
    first, second = np.asarray(first), np.asarray(second)
    return {"error": float(np.abs(first - second).max() / np.abs(second).max())}


def draw_masks(shape: tuple[int, ...], rate: float) -> np.ndarray:
    """Draw masks of the library, as 0 and 1."""
    seed = tf.constant([11, 0], dtype="uint32")
    return functional.keep_mask(shape, rate, seed).numpy().astype("float64")


def ridge(config: Config) -> Measurement:
    """E|y - (R*X)w|^2 = |y - pXw|^2 + p(1 - p) |Gamma w|^2, Gamma = diag(X'X)^(1/2)."""
    random = np.random.default_rng(0)
    x, w = random.normal(1, 2, (30, 5)), random.normal(1, 1, 5)
    y = random.normal(3, 1, 30)
    masks = draw_masks((10 * config.repetitions, *x.shape), RATE)
    drawn = np.sum((y - (masks * x) @ w) ** 2, axis=1)
    penalty = KEEP * (1 - KEEP) * np.sum(np.diag(x.T @ x) * w**2)
    return compare(drawn, np.sum((y - KEEP * x @ w) ** 2) + penalty)


def variance_shift(
    config: Config, keep: float, activation: Callable[[np.ndarray], np.ndarray]
) -> Measurement:
    """Variance at inference / variance in training = v / ((c^2 + v) / p - c^2)."""
    random = np.random.default_rng(1)
    x = activation(random.normal(size=(config.repetitions, config.samples)))
    thinned = x * draw_masks(x.shape, 1 - keep) / keep
    mean, variance = MOMENTS[activation]
    expected = variance / ((mean**2 + variance) / keep - mean**2)
    return compare(x.var(axis=1, ddof=1) / thinned.var(axis=1, ddof=1), expected)


def identity(x: np.ndarray) -> np.ndarray:
    """Return the inputs."""
    return x


def relu(x: np.ndarray) -> np.ndarray:
    """Return the positive part."""
    return np.maximum(x, 0)


# Mean and variance for standard normal inputs.
MOMENTS: dict[Callable[[np.ndarray], np.ndarray], tuple[float, float]] = {
    identity: (0.0, 1.0),
    relu: (1 / math.sqrt(2 * math.pi), 0.5 - 1 / (2 * math.pi)),
}


def two_forms(config: Config) -> Measurement:
    """Show that both forms of dropout are one function under W' = pW, while learning.

    The initial weights behind the dropout are multiplied by p, their learning rate by
    p^2, the factor of their squares in the loss by 1 / p^2.
    """
    random = np.random.default_rng(2)
    x = tf.constant(random.normal(size=(40, 6)))
    y = tf.constant(random.normal(size=(40, 3)))
    first, second = random.normal(size=(6, 8)), random.normal(size=(8, 3))

    def train(scale_at: str, factor: float) -> tuple[np.ndarray, np.ndarray]:
        dropout = kerasnorm.KDropout(RATE, seed=5, scale_at=scale_at, dtype="float64")
        hidden, behind = tf.Variable(first), tf.Variable(factor * second)

        def outputs(training: bool) -> tf.Tensor:
            return dropout(tf.nn.relu(x @ hidden), training=training) @ behind

        for _ in range(config.steps):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((outputs(True) - y) ** 2)
                loss += 0.01 / factor**2 * tf.reduce_sum(behind**2)
            d_hidden, d_behind = tape.gradient(loss, [hidden, behind])
            hidden.assign_sub(0.05 * d_hidden)
            behind.assign_sub(0.05 * factor**2 * d_behind)
        return behind.numpy(), outputs(False).numpy()

    original, original_outputs = train("inference", 1.0)
    inverted, inverted_outputs = train("training", KEEP)
    errors = (
        relative_error(inverted, KEEP * original),
        relative_error(inverted_outputs, original_outputs),
    )
    return {"error": max(e["error"] for e in errors)}


def scale_invariance(config: Config) -> Measurement:
    """BN((aW)u) = BN(Wu); d/du is the same; d/d(aW) is 1/a times d/dW."""
    random = np.random.default_rng(3)
    u = tf.constant(random.normal(1, 2, (50, 7)))
    weights = random.normal(size=(7, 4))
    direction = tf.constant(random.normal(size=(50, 4)))
    norm = kerasnorm.KBatchNorm(epsilon=0.0, dtype="float64")

    def differentiate(a: float) -> list[np.ndarray]:
        scaled = tf.Variable(a * weights)
        with tf.GradientTape() as tape:
            tape.watch(u)
            y = norm(u @ scaled, training=True)
        gradients = tape.gradient(y, [u, scaled], direction)
        return [y.numpy(), gradients[0].numpy(), gradients[1].numpy()]

    a = 7.0
    y, d_u, d_weights = differentiate(1.0)
    pairs = zip(differentiate(a), (y, d_u, d_weights / a), strict=True)
    return {"error": max(relative_error(*pair)["error"] for pair in pairs)}


def bessel(config: Config, corrected: bool) -> Measurement:
    """E[m / (m - 1) variance of a batch] = variance; at m = 2 without it half of it."""
    random = np.random.default_rng(4)
    biased = random.normal(3, 2, (10 * config.repetitions, 2)).var(axis=1)
    if not corrected:
        return compare(biased, 2.0)
    count = tf.constant(2.0, "float64")
    return compare(functional.unbiased_variance(count, tf.constant(biased)).numpy(), 4)


def layer_bessel(config: Config) -> Measurement:
    """Show that the layer's moving variance at m = 2 is the mean of (x1 - x2)^2 / 2."""
    batches = np.random.default_rng(5).normal(3, 2, (20, 2, 3))
    norm = kerasnorm.KBatchNorm(
        bessel_correction=True, moving_average="cumulative", dtype="float64"
    )
    for batch in batches:
        norm(tf.constant(batch), training=True)
    expected = ((batches[:, 0] - batches[:, 1]) ** 2 / 2).mean(axis=0)
    return relative_error(norm.moving_variance.numpy(), expected)


EXPECTATIONS: dict[str, Callable[[Config], Measurement]] = {
    "section 9.1: dropout is ridge regression": ridge,
    "variance shift, N(0, 1), p = 0.8": partial(
        variance_shift, keep=0.8, activation=identity
    ),
    "variance shift, ReLU of N(0, 1), p = 0.5": partial(
        variance_shift, keep=0.5, activation=relu
    ),
    "m / (m - 1) at m = 2": partial(bessel, corrected=True),
    "the biased variance at m = 2 is half": partial(bessel, corrected=False),
}
IDENTITIES: dict[str, Callable[[Config], Measurement]] = {
    "original and inverted dropout, 20 steps": two_forms,
    "BN((aW)u) = BN(Wu), and the gradients": scale_invariance,
    "the layer's moving variance at m = 2": layer_bessel,
}


def run(lab: Lab, config: Config) -> dict[str, Any]:
    """Compute all of them."""
    return {
        name: lab.once({"identity": name}, partial(measure, config))
        for name, measure in (EXPECTATIONS | IDENTITIES).items()
    }


def analyse(measured: dict[str, Any], config: Config) -> Finding:
    """Find the largest deviation of each kind."""
    deviation = max(measured[name]["standard_errors"] for name in EXPECTATIONS)
    error = max(measured[name]["error"] for name in IDENTITIES)
    return Finding(
        holds=deviation <= STANDARD_ERRORS and error <= TOLERANCE,
        measured=f"Monte Carlo means within {deviation:.1f} standard errors, "
        f"identities to {error:.0e}",
        numbers=[
            *(
                Number(
                    name,
                    f"{measured[name]['mean']:.4f}, "
                    f"{measured[name]['standard_errors']:.1f} standard errors off",
                    f"{measured[name]['expected']:.4f}",
                )
                for name in EXPECTATIONS
            ),
            *(
                Number(name, f"relative error {measured[name]['error']:.1e}", "0")
                for name in IDENTITIES
            ),
        ],
    )


def plot(measured: dict[str, Any], figure: Figure) -> None:
    """Draw the deviations of the Monte Carlo means."""
    axes = figure.subplots()
    names = list(EXPECTATIONS)
    axes.barh(names, [measured[name]["standard_errors"] for name in names])
    axes.axvline(STANDARD_ERRORS, color="k", linestyle="--")
    axes.set(xlabel="deviation from the exact value, in standard errors")


R11 = Experiment(
    name="r11",
    title="Exact identities",
    claim="The papers' identities hold exactly for the layers.",
    source="Srivastava et al. 2014, sections 9.1 and 10; Li et al. 2018, section 3.1; "
    "Ioffe & Szegedy 2015, Alg. 2 and section 3.3",
    criterion="Every Monte Carlo mean lies within 4 standard errors of the exact "
    "value; every identity holds in float64 to a relative error of 1e-6, gradients "
    "included.",
    full=Config(),
    quick=Config(repetitions=100, samples=2_000),
    run=run,
    analyse=analyse,
    plot=plot,
)
