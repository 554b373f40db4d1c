"""Dropout for PyTorch: on a CPU the noise is drawn by NumPy, once."""

import math
from typing import Any

import numpy as np
import torch
from keras import ops

from kerasnorm import functional
from kerasnorm.backend.torch import words
from kerasnorm.backend.torch.plain import is_plain
from kerasnorm.functional import Shape, Tensor

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def dropout(
    x: Tensor,
    rate: float | Tensor,
    seed: Tensor,
    noise_shape: Shape | None = None,
) -> Tensor:
    """Apply `functional.dropout`, its mask drawn once."""
    x = ops.convert_to_tensor(x)
    if not (is_plain(x) and x.is_cpu):
        return functional.dropout(x, rate, seed, noise_shape)
    keep = np.float64 if x.dtype == torch.float64 else np.float32
    keep = keep(functional.keep_fraction(rate))
    return _Keep.apply(
        x, _keep_bits(x, rate, seed, noise_shape), float(1 / keep if keep > 0 else 0)
    )


def thinning(
    x: Tensor,
    rate: float | Tensor,
    seed: Tensor,
    noise_shape: Shape | None = None,
) -> Tensor:
    """Apply `functional.thinning`, its mask drawn once."""
    x = ops.convert_to_tensor(x)
    if not (is_plain(x) and x.is_cpu):
        return functional.thinning(x, rate, seed, noise_shape)
    return _Keep.apply(x, _keep_bits(x, rate, seed, noise_shape), 1.0)


def gaussian_dropout(x: Tensor, rate: float | Tensor, seed: Tensor) -> Tensor:
    """Apply `functional.gaussian_dropout`, its noise drawn once."""
    x = ops.convert_to_tensor(x)
    if not (is_plain(x) and x.is_cpu):
        return functional.gaussian_dropout(x, rate, seed)
    noise = words.normal(x.numel(), _numbers(seed))
    rate = np.float32(rate)
    noise *= np.sqrt(rate / (1 - rate))
    noise += 1
    return (x * torch.from_numpy(noise).reshape(x.shape)).to(x.dtype)


def _keep_bits(
    x: Tensor, rate: float | Tensor, seed: Tensor, noise_shape: Shape | None
) -> Tensor:
    """Return an int8 tensor that is -1, which is all bits, where x is kept, else 0."""
    shape = functional.mask_shape(noise_shape, x)
    threshold = int(functional.drop_threshold(rate))
    bits = words.keep_bits(math.prod(shape), threshold, _numbers(seed))
    return torch.from_numpy(bits).reshape(shape)


def _numbers(seed: Tensor) -> tuple[int, int]:
    """Return the seed and the number of draws."""
    first, draws = ops.convert_to_tensor(seed).tolist()
    return first, draws


class _Keep(torch.autograd.Function):
    """Multiply what is kept by a scale; what is dropped is 0, whatever it was."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bits: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(bits)
        ctx.save_for_forward(bits)
        ctx.scale = scale
        integers = x.view(_INTEGERS[x.itemsize])
        bits = bits.to(integers.dtype)
        # In place it is a third faster.
        kept = bits & integers if bits.shape != x.shape else bits.bitwise_and_(integers)
        return kept.view(x.dtype).mul_(scale)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        return _Keep.apply(dy, *ctx.saved_tensors, ctx.scale), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        return _Keep.apply(tangent, *ctx.saved_tensors, ctx.scale)
