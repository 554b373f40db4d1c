"""Masks of batch normalization."""

from keras import ops

from kerasnorm import _validation
from kerasnorm.functional import Tensor


def align_mask(mask: Tensor | None, x: Tensor, axis: int) -> Tensor | None:
    """Give a mask the rank of `x`.

    A mask lacks the last axis of the inputs, as Keras's masks do. Where that does not
    fit it lacks `axis`, the layer's.
    """
    if mask is None:
        return None
    mask = _validation.check_mask(mask)
    if len(mask.shape) == len(x.shape):
        if _validation.broadcasts(mask.shape, x.shape):
            return mask
    elif len(mask.shape) == len(x.shape) - 1:
        last = len(x.shape) - 1
        # A size of the mask that tracing does not know is not taken for a fit.
        is_keras_mask = axis == last or mask.shape[axis] == x.shape[axis]
        for missing in (last, axis) if is_keras_mask else (axis,):
            shape = (*mask.shape[:missing], 1, *mask.shape[missing:])
            if _validation.broadcasts(shape, x.shape):
                return ops.expand_dims(mask, missing)
    raise ValueError(
        _validation.message(
            "mask",
            "of the inputs' shape without the last or the normalized axis, or "
            f"broadcastable to it at the same rank; the inputs' is {x.shape}",
            mask.shape,
        )
    )
