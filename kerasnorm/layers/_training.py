"""`training`, a Python value or a tensor."""

from collections.abc import Callable
from typing import Any

from keras import ops

from kerasnorm.functional import Tensor


def if_training(
    training: Any, yes: Callable[[], Tensor], no: Callable[[], Tensor]
) -> Tensor:
    """Return `yes()` in training and `no()` at inference.

    A tensor decides when the layer runs; a Python value decides when it is traced.
    """
    if ops.is_tensor(training):
        return ops.cond(ops.cast(training, "bool"), yes, no)
    return yes() if training else no()
