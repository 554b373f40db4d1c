"""Steps on the PyTorch backend, and those of `torch.nn`."""

from typing import Any

import numpy as np
import torch

from benchmarks.steps.cases import (
    EPSILON,
    MOMENTUM,
    RATE,
    Case,
    arrays,
    make_layer,
)
from benchmarks.timing import Step
from training.machine import num_cores

HAS_GRAPHS = False
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def layer_step(case: Case, library: str) -> Step:
    """Make the eager step of our layer or of Keras's."""
    layer = make_layer(case, library)
    x, dy = (_tensor(values, case) for values in arrays(case))
    layer.build(x.shape)
    weights = [weight.value for weight in layer.trainable_variables]
    return _step(case, lambda: layer(x, training=case.training), x, weights, dy)


def native_steps(case: Case) -> dict[str, Step]:
    """Make the steps of `torch.nn`'s layer, for images in both memory layouts."""
    if case.layer not in ("batch_norm", "dropout"):
        return {}
    if len(case.shape) == 4:
        layouts = {"torch NCHW": False, "torch NHWC": True}
        return {name: native_step(case, last) for name, last in layouts.items()}
    return {"torch": native_step(case)}


def native_step(case: Case, channels_last: bool = False) -> Step:
    """Make the step of `torch.nn`'s layer."""
    channels = case.shape[case.axis]
    x, dy = (
        _channels_second(_tensor(values, case), case.axis, channels_last)
        for values in arrays(case)
    )
    if case.layer == "dropout":
        layer = torch.nn.Dropout(RATE)
    elif x.ndim == 4:
        layer = torch.nn.BatchNorm2d(channels, EPSILON, 1 - MOMENTUM)
    else:
        layer = torch.nn.BatchNorm1d(channels, EPSILON, 1 - MOMENTUM)
    layer.train(case.training).to(DEVICE)
    return _step(case, lambda: layer(x), x, list(layer.parameters()), dy)


def copy_step(case: Case) -> Step:
    """Make a step that reads and writes as many bytes as the input has."""
    x = _tensor(arrays(case)[0], case)
    return _waiting(lambda: x + 1)


def _step(
    case: Case, call: Step, x: torch.Tensor, weights: list[torch.Tensor], dy: Any
) -> Step:
    torch.set_num_threads(num_cores())

    def train() -> list[Any]:
        y = call()
        return [y, *torch.autograd.grad(y, [x, *weights], dy)]

    def infer() -> list[Any]:
        with torch.inference_mode():
            return [call()]

    x.requires_grad_(case.training)
    return _waiting(train if case.training else infer)


def _waiting(step: Step) -> Step:
    """Wait until a GPU has done what it was asked for."""
    if DEVICE == "cpu":
        return step

    def wait() -> Any:
        results = step()
        torch.cuda.synchronize()
        return results

    return wait


def _tensor(values: np.ndarray, case: Case) -> torch.Tensor:
    dtype = getattr(torch, case.dtype)
    tensor: torch.Tensor = torch.from_numpy(values).to(DEVICE, dtype)
    return tensor


def _channels_second(x: torch.Tensor, axis: int, channels_last: bool) -> torch.Tensor:
    x = x.movedim(axis, 1)
    if channels_last:
        return x.contiguous(memory_format=torch.channels_last)
    return x.contiguous()
