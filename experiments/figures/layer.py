"""A batch normalization layer: its parameters, its computation, its averages."""

import functools
from typing import Any

import keras
import numpy as np
from keras import ops
from matplotlib.figure import Figure

import kerasnorm
from experiments.figures.drawing import BLUE, GREEN, GREY, ORANGE, Drawn, table
from experiments.figures.runs import SEED, UNSEEN, AfterSteps, compiled, fashion_mnist

UNITS, SHOWN, BATCH, EPOCHS = 64, 3, 6, 5


@functools.cache
def trained(moving_average: str) -> tuple[keras.Model, list[dict[str, Any]]]:
    """Train 784-64-10 with batch normalization.

    Returns:
        The model, and what its normalization held every ten steps. `mean` and
        `variance` are those of its inputs over 2,000 training images, with the weights
        of that step.
    """
    keras.utils.set_random_seed(SEED)
    images, labels = fashion_mnist("train", 10000)
    dense = keras.layers.Dense(UNITS, use_bias=False)
    norm = kerasnorm.KBatchNorm(moving_average=moving_average)
    model = compiled(
        [
            keras.Input((784,)),
            dense,
            norm,
            keras.layers.ReLU(),
            keras.layers.Dense(10),
        ],
        keras.optimizers.SGD(0.1),
    )
    history = []

    def look(step: int) -> None:
        z = images[:2000] @ ops.convert_to_numpy(dense.kernel)
        held = {w.name: ops.convert_to_numpy(w).copy() for w in norm.weights}
        moments = {"mean": z.mean(0, "float64"), "variance": z.var(0, "float64")}
        history.append({"step": step, **moments, **held})

    model.fit(
        images,
        labels,
        batch_size=100,
        epochs=EPOCHS,
        callbacks=[AfterSteps(look, 10)],
        verbose=0,
    )
    return model, history


def copy_of_the_layer() -> tuple[np.ndarray, kerasnorm.KBatchNorm]:
    """Return the kernel before a trained layer, and a copy of the layer."""
    model, _ = trained("exponential")
    dense, norm = model.layers[:2]
    copy = kerasnorm.KBatchNorm.from_config(norm.get_config())
    copy.build((None, UNITS))
    copy.set_weights(norm.get_weights())
    return ops.convert_to_numpy(dense.kernel), copy


def held(norm: Any, *names: str) -> np.ndarray:
    """Return weights of the layer for the features that are shown."""
    return np.stack([ops.convert_to_numpy(getattr(norm, n))[:SHOWN] for n in names])


def parameters() -> Drawn:
    """Draw what the layer holds, feature by feature, before training and after."""
    _, history = trained("exponential")
    first, last = history[0], history[-1]
    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True)
    titles = {
        "gamma": "γ: learned by gradient descent",
        "moving_mean": "moving mean: an average of the batches' means",
        "beta": "β: learned by gradient descent",
        "moving_variance": "moving variance: an average of the batches' variances",
    }
    numbers = {}
    for axes, (name, title) in zip(panels.flat, titles.items(), strict=True):
        colour = GREEN if "moving" in name else BLUE
        axes.axhline(first[name][0], c=GREY, ls="--", lw=1, label="before training")
        axes.vlines(range(UNITS), first[name], last[name], color=colour, lw=1)
        axes.plot(last[name], ".", c=colour, label=f"after {last['step']} steps")
        axes.set_title(title, fontsize=9)
        axes.grid(alpha=0.3)
        numbers[f"{name}, least"] = float(last[name].min())
        numbers[f"{name}, largest"] = float(last[name].max())
    for axes in panels[1]:
        axes.set_xlabel(f"feature, 0 to {UNITS - 1}")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
    return figure, numbers


def computation() -> Drawn:
    """Draw Alg. 1 on a mini-batch of six images, for three features of the layer."""
    images, _ = fashion_mnist("t10k", BATCH)
    kernel, norm = copy_of_the_layer()
    x = images @ kernel
    before = held(norm, "moving_mean", "moving_variance")
    output = ops.convert_to_numpy(norm(x, training=True))[:, :SHOWN]
    after = held(norm, "moving_mean", "moving_variance")
    x = x[:, :SHOWN]
    gamma_beta = held(norm, "gamma", "beta")
    mean_variance = np.stack([x.mean(0), x.var(0)])
    x_hat = (x - mean_variance[0]) / np.sqrt(mean_variance[1] + norm.epsilon)
    y = gamma_beta[0] * x_hat + gamma_beta[1]
    np.testing.assert_allclose(output, y, rtol=1e-4, atol=1e-4)

    figure = Figure(figsize=(9.5, 4.8), layout="constrained")
    panels = figure.subplots(2, 3, height_ratios=(BATCH, 4))
    samples = [f"image {k + 1}" for k in range(BATCH)]
    features = [f"feature {k}" for k in range(SHOWN)]
    (axes_x, axes_x_hat, axes_y), (axes_moments, axes_parameters, axes_moving) = panels
    table(axes_x, x, "1  activations x", samples, features, digits=3)
    table(
        axes_moments,
        mean_variance,
        "2  over the mini-batch",
        ("mean", "variance"),
        digits=3,
    )
    table(
        axes_x_hat,
        x_hat,
        "3  normalize: x̂ = (x − mean) / √(variance + ε)",
        samples,
        features,
        digits=3,
    )
    table(axes_parameters, gamma_beta, "the layer's parameters", ("γ", "β"), digits=3)
    table(axes_y, y, "4  scale and shift: y = γ x̂ + β", samples, features, digits=3)
    rows = [f"{n} {when}" for n in ("mean", "variance") for when in ("before", "after")]
    moving = np.stack([before, after], 1).reshape(4, SHOWN)
    table(
        axes_moving, moving, "5  moving: 0.99 · before + 0.01 · batch", rows, digits=3
    )
    numbers = {
        f"{name}, feature 0": float(value)
        for name, value in (
            ("mean", mean_variance[0, 0]),
            ("variance", mean_variance[1, 0]),
            ("moving mean before", before[0, 0]),
            ("moving mean after", after[0, 0]),
        )
    }
    return figure, numbers


def moving_average() -> Drawn:
    """Draw a moving mean and a moving variance, and what they average."""
    histories = {
        name: trained(name)[1] for name in ("exponential", "debiased", "cumulative")
    }
    steps = [row["step"] for row in histories["exponential"]]
    last = histories["exponential"][-1]
    feature = int(np.argmax(abs(last["mean"])))
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    numbers = {}
    colours = (BLUE, ORANGE, GREEN)
    for axes, moment in zip(figure.subplots(1, 2), ("mean", "variance"), strict=True):
        truth = [row[moment][feature] for row in histories["exponential"]]
        axes.plot(
            steps, truth, c="0.3", lw=3, alpha=0.4, label="of the training images"
        )
        for (name, history), colour in zip(histories.items(), colours, strict=True):
            moving = [row[f"moving_{moment}"][feature] for row in history]
            axes.plot(steps, moving, c=colour, label=f'moving, "{name}"')
            numbers[f"{moment}, {name}, step 50"] = float(moving[steps.index(50)])
        numbers[f"{moment}, truth, step 50"] = float(truth[steps.index(50)])
        axes.set(xlabel="training step", title=f"{moment} of one feature")
        axes.grid(alpha=0.3)
        if moment == "mean":
            axes.legend(fontsize=8)
    return figure, numbers


def inference() -> Drawn:
    """Draw one image: the computation at inference, and its outputs in many batches."""
    images, _ = fashion_mnist("t10k", UNSEEN)
    kernel, norm = copy_of_the_layer()
    training_images, _ = fashion_mnist("train", 10000)
    kerasnorm.recalibrate(
        keras.Sequential([keras.Input((UNITS,)), norm]),
        training_images @ kernel,
        verbose=0,
    )
    z = images @ kernel
    mean, variance, gamma, beta = held(
        norm, "moving_mean", "moving_variance", "gamma", "beta"
    )
    x = z[0, :SHOWN]
    x_hat = (x - mean) / np.sqrt(variance + norm.epsilon)
    y = gamma * x_hat + beta
    output = ops.convert_to_numpy(norm(z[:1], training=False))[0, :SHOWN]
    np.testing.assert_allclose(output, y, rtol=1e-4, atol=1e-4)

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    calculation, spread = figure.subplots(1, 2, width_ratios=(1, 1.3))
    rows = ("x", "moving mean", "moving variance", "x̂", "γ", "β", "y")
    values = np.stack([x, mean, variance, x_hat, gamma, beta, y])
    features = [f"feature {k}" for k in range(SHOWN)]
    table(calculation, values, "one image at inference", rows, features, digits=3)
    numbers = {}
    for size, colour, offset in ((8, GREY, -0.25), (64, BLUE, 0.0)):
        outputs = np.stack([in_a_batch(norm, z, size, k) for k in range(200)])
        for k in range(SHOWN):
            place = k + offset + np.random.default_rng(k).uniform(-0.07, 0.07, 200)
            label = f"in 200 batches of {size}" if k == 0 else None
            spread.plot(place, outputs[:, k], ".", c=colour, ms=3, label=label)
        numbers[f"standard deviation of feature 0, batches of {size}"] = float(
            outputs[:, 0].std()
        )
    spread.plot(np.arange(SHOWN) + 0.22, y, "D", c=ORANGE, label="at inference")
    spread.set_xticks(range(SHOWN), features)
    spread.set_ylabel("y")
    spread.set_title("the same image in training and at inference", fontsize=9)
    spread.grid(alpha=0.3)
    spread.legend(fontsize=8)
    return figure, numbers


def in_a_batch(norm: Any, z: np.ndarray, size: int, number: int) -> np.ndarray:
    """Return what training makes of the first image beside others drawn at random."""
    others = np.random.default_rng(number).choice(len(z) - 1, size - 1, replace=False)
    y = norm(z[np.concatenate([[0], 1 + others])], training=True)
    return ops.convert_to_numpy(y)[0, :SHOWN]
