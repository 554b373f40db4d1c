"""The random state of the dropout layers."""

import keras
import torch

from kerasnorm.backend.generic import ONE_AT_A_TIME
from kerasnorm.functional import Tensor


def next_seed(generator: keras.random.SeedGenerator) -> Tensor:
    """Return the random state of a layer, and advance it; in one thread at a time.

    The generator does it by operations that a compiler cannot trace. Nor can it trace a
    lock; a compiled function writes its state when it ends.
    """
    if torch.compiler.is_compiling():
        return _advance(generator)
    with ONE_AT_A_TIME:
        return _advance(generator)


def _advance(generator: keras.random.SeedGenerator) -> Tensor:
    seed = generator.state.value.clone()
    one_draw = torch.tensor([0, 1], dtype=seed.dtype, device=seed.device)
    generator.state.assign(seed + one_draw)
    return seed
