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

SMALL = 8192
"""Up to this many elements two operations are faster than a function of our own."""

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def dropout(
    x: Tensor,
    rate: float | Tensor,
    seed: Tensor,
    noise_shape: Shape | None = None,
) -> Tensor:
    """Apply `functional.dropout`, its mask drawn once."""
    x = ops.convert_to_tensor(x)
    if not _is_on_cpu(x):
        return functional.dropout(x, rate, seed, noise_shape)
    dtype = np.float64 if x.dtype == torch.float64 else np.float32
    keep = dtype(functional.keep_fraction(rate))
    return _drop(x, rate, seed, noise_shape, float(1 / keep) if keep > 0 else 0.0)


def thinning(
    x: Tensor,
    rate: float | Tensor,
    seed: Tensor,
    noise_shape: Shape | None = None,
) -> Tensor:
    """Apply `functional.thinning`, its mask drawn once."""
    x = ops.convert_to_tensor(x)
    if not _is_on_cpu(x):
        return functional.thinning(x, rate, seed, noise_shape)
    return _drop(x, rate, seed, noise_shape, 1.0)


def gaussian_dropout(x: Tensor, rate: float | Tensor, seed: Tensor) -> Tensor:
    """Apply `functional.gaussian_dropout`, its noise drawn once."""
    x = ops.convert_to_tensor(x)
    if not _is_on_cpu(x):
        return functional.gaussian_dropout(x, rate, seed)
    rate = float(rate)
    noise = words.gaussian_noise(x.numel(), rate / (1 - rate), _numbers(seed))
    return (x * torch.from_numpy(noise.reshape(x.shape))).to(x.dtype)


def _is_on_cpu(x: Tensor) -> bool:
    return is_plain(x) and x.is_cpu


def _numbers(seed: Tensor) -> tuple[int, int]:
    """Return the seed and the number of draws."""
    first, draws = torch.as_tensor(seed).tolist()
    return first, draws


def _drop(
    x: Tensor,
    rate: float | Tensor,
    seed: Tensor,
    noise_shape: Shape | None,
    scale: float,
) -> Tensor:
    """Draw a mask; what is kept is multiplied, and what is dropped is 0."""
    shape = functional.mask_shape(noise_shape, x)
    threshold = int(functional.drop_threshold(rate))
    dropped = words.drop_mask(math.prod(shape), threshold, _numbers(seed))
    mask = torch.from_numpy(dropped).reshape(shape)
    if x.numel() <= SMALL:
        return x.masked_fill(mask, 0.0) * scale
    y: Tensor = _CutAndScale.apply(x, mask.view(torch.int8).sub_(1), scale)
    return y


class _CutAndScale(torch.autograd.Function):
    """Cut x by bits, which are all 1 or all 0, and multiply.

    What is cut becomes 0 where it is infinite or NaN, too. To choose it by a condition
    takes PyTorch seven times as long.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, bits: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(bits)
        ctx.scale = scale
        return _cut(x, bits).mul_(scale)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        return _CutAndScale.apply(dy, *ctx.saved_tensors, ctx.scale), None, None


def _cut(x: Tensor, bits: Tensor) -> Tensor:
    integers = x.view(_INTEGERS[x.itemsize])
    bits = bits.to(integers.dtype)
    if bits.shape == x.shape:
        return bits.bitwise_and_(integers).view(x.dtype)
    return (integers & bits).view(x.dtype)
