"""Less memory for the backward pass: `recompute`."""

import inspect
from typing import Any

import keras

from kerasnorm import _validation
from kerasnorm.functional import Shape, Tensor
from kerasnorm.layers._recompute import recomputed


def recompute(layer: keras.layers.Layer, name: str | None = None) -> keras.layers.Layer:
    """Return a layer that computes `layer` again in the backward pass.

    In training nothing that `layer` computes is kept but its inputs and outputs: less
    memory for one more forward pass (gradient checkpointing; Chen et al. 2016). The
    second pass draws the masks of the first one, and neither the random state nor
    moving statistics move on in it. So the gradients and all variables are those of
    `layer` without recomputation. At inference `layer` is called as it is.

    `tf.recompute_grad`, `keras.remat` and `torch.utils.checkpoint` alone know nothing
    of a layer's state: in their second pass a layer of this package raises an error.
    Layers of this package that are made in a `keras.RematScope` (since Keras 3.9) do
    what is here.

    Args:
        layer: Keras layer or model, mostly a block of several layers. Keras's own
            layers, with their dropout and batch normalization, may be in it.
        name: The name of the new layer. Defaults to one of its own.

    Returns:
        A `keras.layers.Wrapper` of `layer`: it takes and returns what `layer` does, has
        its weights, and is saved and loaded with it.

    Raises:
        TypeError: If `layer` is no Keras layer.

    Example:

    >>> import keras, kerasnorm
    >>> block = keras.Sequential([
    ...     keras.layers.Dense(8), kerasnorm.KBatchNorm(), keras.layers.ReLU(),
    ...     kerasnorm.KDropout(0.5)])
    >>> model = keras.Sequential([
    ...     keras.Input((4,)), kerasnorm.recompute(block), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x = keras.random.normal((32, 4), seed=1)
    >>> history = model.fit(x, x[:, :1], batch_size=16, verbose=0)
    >>> int(block.layers[-1].seed_generator.state[1])  # a mask for each of two batches
    2

    References:
        - Chen, Xu, Zhang & Guestrin 2016, "Training deep nets with sublinear memory
          cost", arXiv:1604.06174.
    """
    if not isinstance(layer, keras.layers.Layer):
        raise TypeError(
            _validation.message(
                "layer",
                "a Keras layer or model",
                layer,
                "Put what a function does into the `call` of a layer.",
            )
        )
    return Recompute(layer, name=name)


@keras.saving.register_keras_serializable(package="kerasnorm")
class Recompute(keras.layers.Wrapper):
    """What `recompute` makes."""

    def __init__(self, layer: keras.layers.Layer, **kwargs: Any) -> None:
        super().__init__(layer, **{"dtype": layer.dtype_policy, **kwargs})
        self.supports_masking = layer.supports_masking

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        """Call the layer, in training so that it is computed again."""
        options = {}
        if mask is not None and "mask" in inspect.signature(self.layer.call).parameters:
            options["mask"] = mask
        return recomputed(self, self.layer)(inputs, training=training, **options)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """Return the layer's mask."""
        return self.layer.compute_mask(inputs, previous_mask)

    def compute_output_shape(self, input_shape: Shape) -> Any:
        """Return the shape of the layer's outputs."""
        return self.layer.compute_output_shape(input_shape)

    def compute_output_spec(self, inputs: Any, **options: Any) -> Tensor:
        """Return the shape and dtype of the layer's outputs."""
        options.pop("mask", None)
        return self.layer.compute_output_spec(inputs, **options)

    def rematerialized_call(self, layer_call: Any, *args: Any, **kwargs: Any) -> Any:
        """Leave to `call` what a `keras.RematScope` would do."""
        return layer_call
