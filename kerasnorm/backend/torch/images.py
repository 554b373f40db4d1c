"""Sums over many samples, by PyTorch's kernels of batch normalization.

The kernels take images, (samples, features, pixels, 1). Where the features are last
there are as many images as samples, each of one pixel.
"""

import functools
import math
from typing import NamedTuple

import torch

from kerasnorm import functional
from kerasnorm.functional import Moments, Tensor

BLOCK = 2048
"""Samples that a kernel adds one after another, at most."""

LANES = 64
"""So many features fill the processor's vectors. Fewer are taken from several samples.
"""

FEWEST = 16
"""With fewer lanes the kernels take longer than composed operations."""


class Layout(NamedTuple):
    """How a tensor is seen as images."""

    samples: int
    features: int
    pixels: int

    @property
    def flat(self) -> tuple[int, ...]:
        """Return the shape without axes of pixels that are not there."""
        return self[:2] if self.pixels == 1 else self

    @property
    def is_one_block(self) -> bool:
        """Return whether no kernel adds many numbers in float32."""
        return self.pixels > 1 or self.samples <= BLOCK

    @property
    def repeats(self) -> int:
        """Return how many samples stand side by side, as if their features were one's.

        So many features fill the lanes, and so few samples are left for each that a
        kernel adds at most a block of them, if the number of samples can be divided so.
        """
        if self.pixels > 1:
            return 1
        lanes = 1 if self.features >= FEWEST else math.gcd(self.samples, LANES)
        blocks = math.ceil(self.samples / BLOCK)
        return _divisor(self.samples, max(lanes, blocks)) or lanes

    @property
    def fills_lanes(self) -> bool:
        """Return whether the kernels are worth it."""
        return self.pixels > 1 or self.repeats * self.features >= FEWEST


def _divisor(samples: int, fewest: int) -> int | None:
    """Return the smallest divisor that is at least so large, if one is not far off."""
    divisors = (d for d in range(fewest, 4 * fewest) if samples % d == 0)
    return next(divisors, None)


@functools.lru_cache(maxsize=1024)
def layout_of(shape: tuple[int, ...], axes: tuple[int, ...]) -> Layout | None:
    """Return how a tensor is seen that is reduced over `axes`.

    It is `None` if there are no elements, or other axes between those that are kept.
    """
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    if not kept or kept[-1] - kept[0] >= len(kept) or 0 in shape:
        return None
    first, last = kept[0], kept[-1] + 1
    samples, features, pixels = shape[:first], shape[first:last], shape[last:]
    return Layout(math.prod(samples), math.prod(features), math.prod(pixels))


def as_images(x: Tensor, layout: Layout) -> Tensor:
    """Return a tensor as images, in the order in memory that the kernels are made for.

    With another order they take 15 times as long.
    """
    if layout.pixels > 1:
        return x.reshape(*layout, 1).contiguous()
    rows = x.reshape(layout.samples // layout.repeats, 1, 1, -1)
    return rows.contiguous().movedim(3, 1)


def broadcast(features: Tensor, layout: Layout) -> Tensor:
    """Return (features,) so that it broadcasts to images."""
    if layout.repeats > 1:
        features = features.repeat(layout.repeats)
    return features[:, None, None]


def moments(images: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """Return the mean and the variance of each feature.

    A kernel adds its samples one after another. So it is given blocks, which are pooled
    by Chan's formula.
    """
    blocks = _blocks(images)
    parts = [torch.batch_norm_update_stats(block, None, None, 0.0) for block in blocks]
    if len(parts) == 1 and layout.repeats == 1:
        mean, variance = parts[0]
        return mean, variance
    counts = [[len(block)] * layout.repeats for block in blocks]
    count = torch.tensor(counts, dtype=images.dtype, device=images.device)
    means, variances = _by_feature(parts, layout)
    pooled = functional.pool_moments(Moments(count.reshape(-1, 1), means, variances))
    return pooled.mean, pooled.variance


def gradient_sums(
    dy: Tensor, images: Tensor, mean: Tensor, layout: Layout
) -> tuple[Tensor, Tensor]:
    """Return the sums of dy * (x - mean) and of dy over the samples."""
    mean = mean.repeat(layout.repeats)
    ones = torch.ones_like(mean)
    only_sums = (False, True, True)  # and no dx, which would be that of the block
    parts = [
        torch.ops.aten.native_batch_norm_backward(
            dy_block, block, ones, None, None, mean, ones, True, 0.0, only_sums
        )[1:]
        for dy_block, block in zip(_blocks(dy), _blocks(images), strict=True)
    ]
    if len(parts) == 1 and layout.repeats == 1:
        dot, total = parts[0]
        return dot, total
    dots, totals = _by_feature(parts, layout)
    return dots.sum(0), totals.sum(0)


def _blocks(images: Tensor) -> tuple[Tensor, ...]:
    """Split the images where a kernel would add many numbers in float32.

    It adds pixels in float64, and a GPU's adds in a tree.
    """
    if images.shape[2] > 1 or not images.is_cpu:
        return (images,)
    blocks: tuple[Tensor, ...] = images.split(BLOCK)
    return blocks


def _by_feature(
    parts: list[tuple[Tensor, Tensor]], layout: Layout
) -> tuple[Tensor, Tensor]:
    """Return both numbers of each part as (parts, features)."""
    first, second = (
        torch.stack(numbers).reshape(-1, layout.features)
        for numbers in zip(*parts, strict=True)
    )
    return first, second
