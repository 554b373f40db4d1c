"""Where batch normalization stands in a network."""

import keras
import numpy as np
from keras import ops
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import kerasnorm
from experiments.figures.drawing import GREEN, Drawn, network
from experiments.figures.runs import SEED, compiled, fashion_mnist

UNITS = (16, 10, 10, 10)
EPOCHS = 10


def trained(normalized: bool) -> keras.Model:
    """Train 16-10-10-10 with ReLU, with batch normalization or without."""
    keras.utils.set_random_seed(SEED)
    images, labels = fashion_mnist("train", 10000)
    small = images.reshape(-1, 4, 7, 4, 7).mean((2, 4)).reshape(-1, 16)
    layers: list[keras.layers.Layer] = []
    for units in UNITS[1:3]:
        layers.append(keras.layers.Dense(units, use_bias=not normalized))
        layers += [kerasnorm.KBatchNorm()] if normalized else []
        layers.append(keras.layers.ReLU())
    model = compiled(
        [keras.Input((16,)), *layers, keras.layers.Dense(UNITS[3])],
        keras.optimizers.Adam(5e-3),
    )
    model.fit(small, labels, batch_size=100, epochs=EPOCHS, verbose=0)
    return model


def placement() -> Drawn:
    """Draw the same network without batch normalization and with it."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, 2, width_ratios=(3, 5))
    numbers = {}
    for axes, normalized in zip(panels, (False, True), strict=True):
        model = trained(normalized)
        title = f"{'with' if normalized else 'without'} batch normalization"
        _draw(axes, model, normalized)
        axes.set_title(title, fontsize=10)
        for kind in ("trainable", "non_trainable"):
            variables = getattr(model, f"{kind}_weights")
            count = sum(int(np.prod(variable.shape)) for variable in variables)
            numbers[f"{title}, {kind.replace('_', '-')} numbers"] = float(count)
    return figure, numbers


def _draw(axes: Axes, model: keras.Model, normalized: bool) -> None:
    dense = [la for la in model.layers if isinstance(la, keras.layers.Dense)]
    first, second, last = (ops.convert_to_numpy(layer.kernel) for layer in dense)
    names = ["inputs", "hidden 1", "hidden 2", "classes"]
    kernels = [first, second, last]
    if normalized:  # one line from each sum to its own normalization and unit
        kernels = [first, np.eye(UNITS[1]), second, np.eye(UNITS[2]), last]
        names[1:1] = ["BN 1"]
        names[3:3] = ["BN 2"]
    counts = [len(kernels[0]), *(kernel.shape[1] for kernel in kernels)]
    captions = [f"{name}\n{n}" for name, n in zip(names, counts, strict=True)]
    network(axes, kernels, [np.ones(n, bool) for n in counts], captions)
    for x, (name, n) in enumerate(zip(names, counts, strict=True)):
        if "BN" in name:
            heights = 1 - (np.arange(n) + 0.5) / n
            axes.scatter([x] * n, heights, s=130, c=GREEN, marker="s", zorder=4)
