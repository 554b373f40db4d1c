"""Batch normalization of finite numbers whose squares are not."""

import math

import torch
from keras import ops

from kerasnorm import functional
from kerasnorm.backend.torch.plain import is_plain
from kerasnorm.functional import Moments, Tensor


def overflows(variance: Tensor) -> bool:
    """Return whether a variance is infinite or NaN; nobody waits for a GPU to know."""
    return bool(variance.is_cpu and not float(variance.sum()) < math.inf)


def normalize_composed(
    x: Tensor,
    axes: tuple[int, ...],
    gamma: Tensor | None,
    beta: Tensor | None,
    epsilon: float,
    mask: Tensor | None,
) -> tuple[Tensor, Moments]:
    """Apply `functional.normalize_batch`, without NaN where a variance overflows.

    There y is beta, and no gradient flows to x. PyTorch's would be 0 times infinity.
    """
    y, batch = functional.normalize_batch(x, axes, gamma, beta, epsilon, mask)
    if not is_plain(x) or not overflows(batch.variance.detach()):
        return y, batch
    is_finite = torch.isfinite(x).all(axes) if axes else torch.isfinite(x)
    too_large = ~torch.isfinite(batch.variance) & is_finite
    usual = torch.where(ops.expand_dims(too_large, axes), 0, x)
    y, _ = functional.normalize_batch(usual, axes, gamma, beta, epsilon, mask)
    # The difference of two numbers may overflow, that of two quarters does not.
    mean = 4 * functional.moments(functional.widen(x.detach()) / 4, axes, mask).mean
    return y, Moments(
        batch.count,
        torch.where(too_large, mean, batch.mean),
        torch.where(too_large, math.inf, batch.variance),
    )
