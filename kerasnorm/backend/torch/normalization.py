"""Batch normalization for PyTorch."""

from typing import Any

import torch
from keras import ops

from kerasnorm import functional
from kerasnorm.backend.torch.images import (
    Layout,
    as_images,
    broadcast,
    gradient_sums,
    layout_of,
    moments,
)
from kerasnorm.backend.torch.overflow import normalize_composed, overflows
from kerasnorm.backend.torch.plain import is_plain
from kerasnorm.functional import Moments, Tensor

SMALL = 100_000
"""Up to this many elements the calls of the kernels take longer than their work."""

FAR = 4.0
"""A mean of so many standard deviations is subtracted from x before the rest.

As a part of the shift in y = factor * x + shift it would cost too many digits.
"""

Results = tuple[Tensor, Tensor, Tensor]
"""The outputs, the mean and the variance."""


def normalize_batch(
    x: Tensor,
    axes: tuple[int, ...],
    gamma: Tensor | None,
    beta: Tensor | None,
    epsilon: float,
    mask: Tensor | None = None,
) -> tuple[Tensor, Moments]:
    """Apply `functional.normalize_batch` by PyTorch's kernels.

    The functional form stands in where they do not fit: under a mask, for a compiler,
    which fuses it, in the transforms of `torch.func`, and where a sum overflows.
    """
    x = ops.convert_to_tensor(x)
    results = None
    if mask is None and is_plain(x):
        results = _by_kernels(x, layout_of(x.shape, axes), gamma, beta, epsilon)
    if results is None:
        return normalize_composed(x, axes, gamma, beta, epsilon, mask)
    y, mean, variance = results
    kept = [size for axis, size in enumerate(x.shape) if axis not in axes]
    count = x.numel() / mean.numel()
    return y, Moments(count, mean.reshape(kept), variance.reshape(kept))


def normalize_with(
    x: Tensor,
    axes: tuple[int, ...],
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    epsilon: float,
) -> Tensor:
    """Apply `functional.normalize_with` by fewer operations."""
    x = ops.convert_to_tensor(x)
    wide = _wide(x)
    # A tensor of the last axis broadcasts as it is.
    sizes = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
    is_last = axes == tuple(range(len(x.shape) - 1))
    mean, variance, gamma, beta = (
        v if v is None or is_last else v.reshape(sizes)
        for v in _cast(wide, mean, variance, gamma, beta)
    )
    factor = torch.rsqrt(variance + epsilon)
    if gamma is not None:
        factor = factor * gamma
    rest = x.to(wide) - mean
    if beta is None:
        beta = torch.zeros_like(mean)
    if not is_plain(x) or torch.is_grad_enabled():
        y = torch.addcmul(beta, rest, factor)
    elif is_last:  # in place it takes half of the time
        y = torch.addcmul(beta, rest, factor, out=rest)
    else:  # `addcmul` has no fast loop for this
        y = rest.mul_(factor).add_(beta)
    return y.to(x.dtype)


def _wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _cast(dtype: torch.dtype, *values: Tensor | None) -> list[Tensor | None]:
    return [None if v is None else ops.convert_to_tensor(v).to(dtype) for v in values]


def _by_kernels(
    x: Tensor,
    layout: Layout | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    epsilon: float,
) -> Results | None:
    """Normalize, or return `None` where the kernels do not fit."""
    if layout is None:
        return None
    wide = _wide(x)
    features = (layout.features,)
    gamma, beta = (
        p if p is None else _reshape(p, features) for p in _cast(wide, gamma, beta)
    )
    if x.numel() <= SMALL and layout.is_one_block:
        return _normalize_few(x, layout, gamma, beta, epsilon, wide)
    if layout.fills_lanes:
        return _normalize_many(x, layout, gamma, beta, epsilon, wide)
    return None


def _normalize_few(
    x: Tensor,
    layout: Layout,
    gamma: Tensor | None,
    beta: Tensor | None,
    epsilon: float,
    wide: torch.dtype,
) -> Results | None:
    """Normalize few elements by one kernel, which PyTorch differentiates.

    It computes y = factor * x + shift, so the mean is subtracted before.
    """
    rows = _reshape(x.to(wide), layout.flat)
    mean = rows.detach().mean((0, 2)[: rows.ndim - 1], keepdim=True)
    rest = rows - mean
    rounding, variance = torch.batch_norm_update_stats(rest.detach(), None, None, 0.0)
    if overflows(variance):
        return None
    y, _, _ = torch.native_batch_norm(rest, gamma, beta, None, None, True, 0.0, epsilon)
    return _reshape(y, x.shape).to(x.dtype), mean.reshape(-1) + rounding, variance


def _normalize_many(
    x: Tensor,
    layout: Layout,
    gamma: Tensor | None,
    beta: Tensor | None,
    epsilon: float,
    wide: torch.dtype,
) -> Results | None:
    """Normalize many elements, and differentiate by the chain rule of BN, section 3."""
    if gamma is None:
        gamma = x.new_ones(layout.features, dtype=wide)
    if beta is None:
        beta = x.new_zeros(layout.features, dtype=wide)
    with torch.no_grad():
        images = as_images(x.to(wide), layout)
        mean, variance = moments(images, layout)
        shift = None
        if not x.is_cpu or _is_far(mean, variance + epsilon):
            shift = mean
            mean, variance = moments(images - broadcast(shift, layout), layout)
        if overflows(variance):
            return None
    y = _Normalize.apply(x, gamma, beta, shift, mean, variance, layout, epsilon)
    return y, mean if shift is None else shift + mean, variance


def _reshape(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Reshape, but do not make a node of the graph for nothing."""
    return x if x.shape == shape else x.reshape(shape)


def _is_far(mean: Tensor, variance: Tensor) -> bool:
    """Return whether a mean is far from 0, or not a number."""
    return not float((mean * torch.rsqrt(variance)).abs().max()) <= FAR


class _Normalize(torch.autograd.Function):
    """Normalize x with its own moments, whose gradients are collected."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gamma: Tensor,
        beta: Tensor,
        shift: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        layout: Layout,
        epsilon: float,
    ) -> Tensor:
        """Apply BN, Alg. 1, lines 3 and 4, to x - shift."""
        ctx.save_for_backward(x, gamma, beta, shift, mean, variance)
        ctx.layout, ctx.epsilon = layout, epsilon
        rest = _rest(x.to(gamma.dtype), shift, layout)
        factor = gamma * torch.rsqrt(variance + epsilon)
        y = torch.addcmul(
            broadcast(beta - mean * factor, layout), rest, broadcast(factor, layout)
        )
        return y.reshape(x.shape).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Apply the chain rule of BN, section 3, collected."""
        x, gamma, beta, shift, mean, variance = ctx.saved_tensors
        layout = ctx.layout
        if torch.is_grad_enabled():  # for a second derivative

            def normalize(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
                rows = x.reshape(layout)
                form = functional.normalize_batch
                y, _ = form(rows, (0, 2), gamma, beta, ctx.epsilon)
                return y.reshape(x.shape)

            _, pull_back = torch.func.vjp(normalize, x, gamma, beta)
            return *pull_back(dy), *[None] * 5
        rest = _rest(x.to(gamma.dtype), shift, layout)
        upstream = as_images(dy.to(gamma.dtype), layout)
        inverse = torch.rsqrt(variance + ctx.epsilon)
        dot, dbeta = gradient_sums(upstream, rest, mean, layout)
        # Where the variance is infinite, as it may be on a GPU, the sum may be NaN.
        dgamma = torch.where(inverse == 0, 0, dot * inverse)
        if not ctx.needs_input_grad[0]:
            return None, dgamma, dbeta, *[None] * 5
        factor = gamma * inverse
        share = factor / (x.numel() / layout.features)
        slope = -share * inverse * dgamma
        dx = torch.addcmul(
            broadcast(-mean * slope - share * dbeta, layout),
            upstream,
            broadcast(factor, layout),
        ).addcmul_(rest, broadcast(slope, layout))
        return dx.reshape(x.shape).to(x.dtype), dgamma, dbeta, *[None] * 5


def _rest(x: Tensor, shift: Tensor | None, layout: Layout) -> Tensor:
    """Return x less the shift, as images."""
    images = as_images(x, layout)
    return images if shift is None else images - broadcast(shift, layout)
