"""The random state of the dropout layers."""

import keras
import torch

from kerasnorm._keras import in_stateless_scope
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
        if in_stateless_scope():
            return _advance(generator)
        state = generator.state.value
        seed = state.clone()
        state[1].add_(1)  # in place it takes a fourth of the time
        return seed


def _advance(generator: keras.random.SeedGenerator) -> Tensor:
    seed = generator.state.value.clone()
    one_draw = torch.tensor([0, 1], dtype=seed.dtype, device=seed.device)
    generator.state.assign(seed + one_draw)
    return seed
