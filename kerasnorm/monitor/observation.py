"""What the KBatchNorm layers of a model see while it runs once."""

import functools
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from kerasnorm import functional
from kerasnorm.functional import Moments, Tensor
from kerasnorm.layers._observe import Observer, observed
from kerasnorm.layers.batch_norm import KBatchNorm, batch_norms

PERCENTILES = (15, 50, 85)
"""Those of BN, figure 1."""

LARGEST_SAMPLE = 2**16
"""Draw at most this many elements from one call of a layer, for the percentiles."""


def find_layers(model: keras.Model) -> dict[str, KBatchNorm]:
    """Return every KBatchNorm in the model, however deep, by a name of its own."""
    layers: dict[str, KBatchNorm] = {}
    counts: Counter[str] = Counter()
    for layer in batch_norms(model):
        counts[layer.name] += 1
        count = counts[layer.name]
        layers[layer.name if count == 1 else f"{layer.name}#{count}"] = layer
    return layers


class Observation:
    """What one layer sees in one run: one call, or several if it is shared."""

    def __init__(self, layer: KBatchNorm) -> None:
        self._layer = layer
        self._inputs: list[np.ndarray] = []
        self._outputs: list[np.ndarray] = []
        self._moments: list[Moments] = []

    def observe(self, inputs: Tensor, outputs: Tensor, mask: Tensor | None) -> None:
        """Take in one call, but not what is masked."""
        positions = _draw_positions(inputs.shape, mask)
        if not len(positions):
            return
        self._inputs.append(_take(inputs, positions))
        self._outputs.append(_take(outputs, positions))
        axes = self._layer.reduction_axes
        self._moments.append(functional.moments(inputs, axes, mask))

    def has_samples(self) -> bool:
        """Return whether the layer was called with anything that counts."""
        return bool(self._moments)

    def summary(self) -> dict[str, float]:
        """Return the percentiles and distances that `ShiftMonitor` documents."""
        layer = self._layer
        count, mean, variance, moving_mean, moving_variance = (
            ops.convert_to_numpy(value).astype("float64")
            for value in (
                *functools.reduce(functional.merge_moments, self._moments),
                # NumPy 2 warns of variables, not of tensors.
                ops.copy(layer.moving_mean.value),
                ops.copy(layer.moving_variance.value),
            )
        )
        seen = np.broadcast_to(count > 0, mean.shape)
        with np.errstate(all="ignore"):  # a model that diverges is recorded too
            scale = moving_variance + layer.epsilon
            shift = np.square(mean - moving_mean) / scale
            ratio = (variance + layer.epsilon) / scale
            return {
                **_percentiles("input", self._inputs),
                **_percentiles("output", self._outputs),
                **_percentiles("moving_mean", [moving_mean]),
                **_percentiles("moving_variance", [moving_variance]),
                "mean_shift": float(np.sqrt(np.mean(shift[seen]))),
                "variance_ratio": float(np.median(ratio[seen])),
            }


def observe_run(
    model: keras.Model, x: Any, layers: Mapping[str, KBatchNorm]
) -> dict[str, Observation]:
    """Run the model at inference; return what each layer has seen, in order of use.

    No variable changes, the random state included, whatever the layers do.
    """
    observations: dict[str, Observation] = {}

    def observer_of(name: str, layer: KBatchNorm) -> Observer:
        def observe(inputs: Tensor, outputs: Tensor, mask: Tensor | None) -> None:
            seen = observations.setdefault(name, Observation(layer))
            seen.observe(inputs, outputs, mask)

        return observe

    observers = {layer: observer_of(name, layer) for name, layer in layers.items()}
    with observed(observers), keras.StatelessScope():
        model(x, training=False)
    return {name: seen for name, seen in observations.items() if seen.has_samples()}


def disagreement(summary: Mapping[str, float]) -> float:
    """Return the larger of mean shift and |log(variance ratio)| / 2, or inf for NaN."""
    with np.errstate(all="ignore"):
        log_ratio = abs(np.log(summary["variance_ratio"])) / 2
    larger = np.maximum(summary["mean_shift"], log_ratio)
    return math.inf if np.isnan(larger) else float(larger)


def _draw_positions(shape: tuple[int, ...], mask: Tensor | None) -> np.ndarray:
    """Draw positions of valid elements in the flat tensor, each time the same."""
    if mask is None:
        valid, size = None, math.prod(shape)
    else:
        valid = np.flatnonzero(np.broadcast_to(ops.convert_to_numpy(mask), shape))
        size = len(valid)
    if size <= LARGEST_SAMPLE:
        drawn = np.arange(size)
    else:
        drawn = np.random.default_rng(0).integers(size, size=LARGEST_SAMPLE)
    return drawn if valid is None else valid[drawn]


def _take(values: Tensor, positions: np.ndarray) -> np.ndarray:
    flat = ops.reshape(functional.widen(values), (-1,))
    taken: np.ndarray = ops.convert_to_numpy(ops.take(flat, positions))
    return taken


def _percentiles(name: str, values: list[np.ndarray]) -> dict[str, float]:
    quantiles = np.percentile(np.concatenate(values), PERCENTILES)
    return {
        f"{name}_{p}": float(quantile)
        for p, quantile in zip(PERCENTILES, quantiles, strict=True)
    }
