"""The KBatchNorm layers of a model: find them, and see what they see."""

import contextlib
from collections.abc import Iterator, Mapping

import keras

from kerasnorm._keras import all_layers
from kerasnorm.layers.batch_norm import KBatchNorm, Observer


def batch_norms(model: keras.Model) -> list[KBatchNorm]:
    """Return every KBatchNorm in a model, however deep."""
    return [layer for layer in all_layers(model) if isinstance(layer, KBatchNorm)]


@contextlib.contextmanager
def observed(observers: Mapping[KBatchNorm, Observer]) -> Iterator[None]:
    """Let each layer call its observer with inputs, outputs and mask in the block."""
    try:
        for norm, observer in observers.items():
            norm.observer = observer
        yield
    finally:
        for norm in observers:
            norm.observer = None
