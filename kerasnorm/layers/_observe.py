"""Look into whole models: what a layer receives and returns while they run."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from types import MappingProxyType

import keras

from kerasnorm.functional import Tensor

Observer = Callable[[Tensor, Tensor, Tensor | None], None]
"""Called with a layer's inputs, outputs and mask."""

_OBSERVERS: ContextVar[Mapping[keras.layers.Layer, Observer]] = ContextVar(
    "observers", default=MappingProxyType({})
)


@contextlib.contextmanager
def observed(observers: Mapping[keras.layers.Layer, Observer]) -> Iterator[None]:
    """Let each layer show its calls to its observer in the block, and to no other.

    The calls are those of this thread. Another one may use the layers meanwhile.
    """
    token = _OBSERVERS.set(observers)
    try:
        yield
    finally:
        _OBSERVERS.reset(token)


def show(
    layer: keras.layers.Layer, inputs: Tensor, outputs: Tensor, mask: Tensor | None
) -> None:
    """Call the observer of a layer, if it has one."""
    observer = _OBSERVERS.get().get(layer)
    if observer is not None:
        observer(inputs, outputs, mask)
