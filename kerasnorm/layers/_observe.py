"""Look into whole models: what a layer receives and returns while they run."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import keras

from kerasnorm._scoped import Scoped
from kerasnorm.functional import Tensor

Observer = Callable[[Tensor, Tensor, Tensor | None], None]
"""Called with a layer's inputs, outputs and mask."""

_OBSERVERS: Scoped[Mapping[keras.layers.Layer, Observer]] = Scoped({})


def observed(
    observers: Mapping[keras.layers.Layer, Observer],
) -> AbstractContextManager[None]:
    """Let each layer show its calls to its observer in the block, and to no other.

    The calls are those of this thread. Another one may use the layers meanwhile.
    """
    return _OBSERVERS.holds(observers)


def show(
    layer: keras.layers.Layer, inputs: Tensor, outputs: Tensor, mask: Tensor | None
) -> None:
    """Call the observer of a layer, if it has one."""
    observer = _OBSERVERS.get().get(layer)
    if observer is not None:
        observer(inputs, outputs, mask)
