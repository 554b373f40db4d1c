"""How a linear layer and a normalization before or after it become one linear layer.

A normalization at inference is y = factor * x + shift for each channel (Ioffe &
Szegedy 2015, Alg. 2, line 11). After a linear layer it scales the columns of the
kernel: k' = k * factor and b' = b * factor + shift. Before one it scales the rows:
k' = factor * k and b' = b + shift k.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
L = keras.layers

_CONVOLUTIONS = (L.Conv1D, L.Conv2D, L.Conv3D)
_TRANSPOSED = (L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose)
_DEPTHWISE = (L.DepthwiseConv1D, L.DepthwiseConv2D)
_SEPARABLE = (L.SeparableConv1D, L.SeparableConv2D)


def _of_columns(kernel: Array, factor: Array) -> Array:
    return kernel * factor


def _of_rows(kernel: Array, factor: Array) -> Array:
    return kernel * factor[:, None]


def _of_depthwise(kernel: Array, factor: Array) -> Array:
    return kernel * factor.reshape(kernel.shape[-2:])


_BY_OUTPUT: dict[type, Callable[[Array, Array], Array]] = {
    L.Dense: _of_columns,
    **dict.fromkeys(_CONVOLUTIONS + _SEPARABLE, _of_columns),
    **dict.fromkeys(_TRANSPOSED, _of_rows),
    **dict.fromkeys(_DEPTHWISE, _of_depthwise),
}
"""How to scale the outputs of a layer's last kernel."""


def why_nothing_after(layer: Any, channel_axis: int, rank: int) -> str | None:
    """Return why no normalization after `layer` can be part of it, or `None`."""
    if type(layer) not in _BY_OUTPUT:
        return f"{layer.name} before it is no linear layer"
    if layer.activation is not keras.activations.linear:
        return f"{layer.name} before it has an activation"
    return _why_not_plain(layer, channel_axis, rank)


def why_nothing_before(layer: Any, channel_axis: int, rank: int) -> str | None:
    """Return why no normalization before `layer` can be part of it, or `None`."""
    if type(layer) not in (L.Dense, *_CONVOLUTIONS):
        return f"{layer.name} after it is no dense layer or convolution"
    if type(layer) in _CONVOLUTIONS:
        if layer.padding != "valid" and max(layer.kernel_size) > 1:
            return f"{layer.name} after it pads with zeros"
        if layer.groups > 1:
            return f"{layer.name} after it has groups"
    return _why_not_plain(layer, channel_axis, rank)


def with_output(layer: Any, weights: list[Array], factor: Array, shift: Array) -> Any:
    """Return the weights of `layer` with y = factor * x + shift after it."""
    kernels, bias = _split(weights, factor.size)
    kernels[-1] = _BY_OUTPUT[type(layer)](kernels[-1], factor)
    return [*kernels, bias * factor + shift]


def with_input(weights: list[Array], factor: Array, shift: Array) -> list[Array]:
    """Return the weights of a layer with y = factor * x + shift before it."""
    (kernel,), bias = _split(weights, weights[0].shape[-1])
    per_input = kernel.reshape(-1, *kernel.shape[-2:]).sum(axis=0)
    return [_of_rows(kernel, factor), bias + shift @ per_input]


def _split(weights: list[Array], outputs: int) -> tuple[list[Array], Array]:
    """Return the kernels and the bias, which is 0 if there is none."""
    kernels = [w.astype("float64") for w in weights if w.ndim > 1]
    biases = [w.astype("float64") for w in weights if w.ndim == 1]
    return kernels, biases[0] if biases else np.zeros(outputs)


def _why_not_plain(layer: Any, channel_axis: int, rank: int) -> str | None:
    first = getattr(layer, "data_format", None) == "channels_first"
    if channel_axis != (1 if first else rank - 1):
        return f"it does not normalize the channels of {layer.name}"
    if getattr(layer, "lora_enabled", False) or getattr(
        layer, "quantization_mode", None
    ):
        return f"{layer.name} is quantized or has LoRA weights"
    return None
