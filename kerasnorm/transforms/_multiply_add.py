"""What is left of a normalization at inference."""

from typing import Any

import keras
from keras import ops

from kerasnorm import _validation, functional
from kerasnorm.functional import Shape, Tensor


@keras.saving.register_keras_serializable(package="kerasnorm")
class MultiplyAdd(keras.layers.Layer):
    """Return y = factor * x + shift, with a factor and shift for each index of `axis`.

    Args:
        axis: Tuple of integers; empty for one factor and shift for all.
        **kwargs: `name`, `dtype` and other arguments of `keras.layers.Layer`.

    Weights:
        factor, shift: Of the shape of `axis`, not trainable, float32 or wider.
    """

    def __init__(self, axis: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = tuple(axis)
        self.supports_masking = True

    def build(self, input_shape: Shape) -> None:
        """Create the weights."""
        axes = _validation.check_axes_fit(self.axis, input_shape) if self.axis else ()
        self.reduction_axes = tuple(a for a in range(len(input_shape)) if a not in axes)
        for name, initializer in (("factor", "ones"), ("shift", "zeros")):
            weight = self.add_weight(
                name=name,
                shape=tuple(input_shape[a] for a in axes),
                initializer=initializer,
                dtype=functional.widened(self.variable_dtype),
                autocast=False,
                trainable=False,
            )
            setattr(self, name, weight)

    def call(
        self, inputs: Tensor, training: Any = None, mask: Tensor | None = None
    ) -> Tensor:
        """Multiply and add; a normalization takes the other arguments too."""
        x = functional.widen(inputs)
        factor, shift = (
            ops.expand_dims(ops.cast(v, x.dtype), self.reduction_axes)
            for v in (self.factor, self.shift)
        )
        return ops.cast(x * factor + shift, self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return `input_shape`."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {**super().get_config(), "axis": self.axis}
