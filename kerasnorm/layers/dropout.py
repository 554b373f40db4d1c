"""Dropout: `KDropout`, `KSpatialDropout`, `KGaussianDropout`."""

from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from kerasnorm import _validation, backend, functional
from kerasnorm._keras import build_at_init
from kerasnorm.functional import Shape, Tensor
from kerasnorm.layers._random import RandomLayer
from kerasnorm.layers._training import if_training


@keras.saving.register_keras_serializable(package="kerasnorm")
class KDropout(RandomLayer):
    """Set a random fraction `rate` of the inputs to 0 in training.

    With r_j ~ Bernoulli(p) and p = 1 - rate (Srivastava et al. 2014, section 4):

    - `scale_at="training"` (inverted dropout): y = r * x / p in training, y = x at
      inference;
    - `scale_at="inference"` (the paper's own form): y = r * x in training, y = p * x
      at inference.

    Either form has the same expected output in training and at inference; the forms
    differ by the factor p. Masks come from 16-bit integers, so `rate` is rounded to a
    multiple of 2**-16 and is exact in every dtype. p is the exact fraction after that.

    Args:
        rate: Fraction of the inputs to drop, a float in [0, 1], or a
            `keras.optimizers.schedules.LearningRateSchedule` called with the count of
            training steps seen, whose values are clipped to [0, 1]. The paper's p is
            the fraction kept, 1 - `rate`.
        noise_shape: Shape of the mask, which is broadcast to the inputs. `None` in it
            stands for the size of the inputs' axis at its place: `(None, 1, None)`
            drops whole features of `(batch, time, features)`. Defaults to the inputs'
            shape.
        seed: Integer that fixes the masks. Defaults to a random one.
        scale_at: `"training"` (default) or `"inference"`.
        monte_carlo: Whether to draw a mask at inference too, in `predict`, `evaluate`
            and exported models. Defaults to `False`.
        **kwargs: `name`, `dtype` and other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Floating-point tensor of any rank.
        training: Whether to drop, a boolean or a boolean tensor. `fit` gives `True`,
            `predict` `False`.

    Input shape: Any.

    Output shape: The input's.

    Weights:
        steps_seen: `()`, not trainable, int32, the count of calls in training; only if
            `rate` is a schedule.

    Raises:
        ValueError: If `rate` is outside of [0, 1], `scale_at` is unknown, or
            `noise_shape` does not broadcast to the inputs.
        TypeError: If an argument is, or the inputs are, of a wrong type.

    Example:

    >>> import keras, kerasnorm
    >>> layer = kerasnorm.KDropout(0.5, seed=1)
    >>> y = keras.ops.convert_to_numpy(layer(keras.ops.ones((1000, 10)), training=True))
    >>> sorted(set(y.ravel().tolist()))
    [0.0, 2.0]
    >>> bool(keras.ops.all(layer(y) == y))
    True

    References:
        - Srivastava, Hinton, Krizhevsky, Sutskever & Salakhutdinov 2014, JMLR
          15(56):1929-1958, sections 4 and 10.
    """

    def __init__(
        self,
        rate: float | LearningRateSchedule,
        noise_shape: Shape | None = None,
        seed: int | None = None,
        *,
        scale_at: str = "training",
        monte_carlo: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(rate, seed=seed, **kwargs)
        self.noise_shape = _validation.check_noise_shape(noise_shape)
        self.scale_at = _validation.check_choice(
            "scale_at", scale_at, ("training", "inference")
        )
        self.monte_carlo = _validation.check_boolean("monte_carlo", monte_carlo)
        build_at_init(self)

    def call(self, inputs: Tensor, training: Any = False) -> Tensor:
        """Drop in training; scale at inference where `scale_at` says so."""
        _validation.check_dtype(inputs, ("float",))
        _check_is_dense(inputs)
        training = _validation.check_training(training)
        if self.noise_shape is not None:
            _validation.check_rank_is_known(inputs, "with a `noise_shape`")
            self.compute_output_shape(inputs.shape)
        rate = self.current_rate()
        self._count_step(training)
        source = self._source(training)
        scaled_at_inference = self.scale_at == "inference"

        def drop() -> Tensor:
            function = source.thinning if scaled_at_inference else source.dropout
            return backend.on_known_rank(
                lambda x: function(x, rate, self._seed(), self.noise_shape), inputs
            )

        def keep() -> Tensor:
            if not scaled_at_inference:
                return inputs
            return functional.scale_by_keep_fraction(inputs, rate)

        return if_training(self._is_random(training), drop, keep)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return `input_shape`, if `noise_shape` broadcasts to it."""
        if self.noise_shape is not None:
            _validation.check_noise_shape_fits(self.noise_shape, input_shape)
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {
            **super().get_config(),
            "noise_shape": self.noise_shape,
            "scale_at": self.scale_at,
            "monte_carlo": self.monte_carlo,
        }


@keras.saving.register_keras_serializable(package="kerasnorm")
class KSpatialDropout(RandomLayer):
    """Set a random fraction `rate` of the inputs' feature maps to 0 in training.

    y = r * x / p with one r ~ Bernoulli(p), p = 1 - rate, for each feature map of each
    sample (Tompson et al. 2015, section 3.2). One layer serves sequences, images and
    volumes, for which Keras has `SpatialDropout1D`, `2D` and `3D`.

    Args:
        rate: Fraction of the feature maps to drop, as in `KDropout`.
        seed: Integer that fixes the masks. Defaults to a random one.
        data_format: `"channels_last"` or `"channels_first"`. Defaults to
            `keras.config.image_data_format()`.
        **kwargs: `name`, `dtype` and other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Floating-point tensor of rank 3, 4 or 5.
        training: Whether to drop, a boolean or a boolean tensor. `fit` gives `True`,
            `predict` `False`.

    Input shape: `(batch, *spatial, channels)`, or `(batch, channels, *spatial)` with
        `data_format="channels_first"`; one to three spatial axes.

    Output shape: The input's.

    Weights:
        steps_seen: As in `KDropout`.

    Raises:
        ValueError: If `rate` is outside of [0, 1], `data_format` is unknown, or the
            inputs' rank is not 3, 4 or 5.
        TypeError: If an argument is, or the inputs are, of a wrong type.

    Example:

    >>> import keras, kerasnorm
    >>> layer = kerasnorm.KSpatialDropout(0.5, seed=1)
    >>> y = layer(keras.ops.ones((1, 2, 2, 6)), training=True)
    >>> keras.ops.convert_to_numpy(y)[0, :, :, 0].tolist() in (
    ...     [[0.0, 0.0], [0.0, 0.0]], [[2.0, 2.0], [2.0, 2.0]])
    True

    References:
        - Tompson, Goroshin, Jain, LeCun & Bregler 2015, "Efficient object
          localization using convolutional networks", arXiv:1411.4280.
    """

    def __init__(
        self,
        rate: float | LearningRateSchedule,
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(rate, seed=seed, **kwargs)
        self.data_format = _validation.check_choice(
            "data_format",
            data_format or keras.config.image_data_format(),
            ("channels_last", "channels_first"),
        )
        self._rank: int | None = None
        build_at_init(self)

    def call(self, inputs: Tensor, training: Any = False) -> Tensor:
        """Drop whole feature maps in training."""
        _validation.check_dtype(inputs, ("float",))
        _check_is_dense(inputs)
        training = _validation.check_training(training)
        _validation.check_rank_is_known(inputs, "in KSpatialDropout")
        self.compute_output_shape(inputs.shape)
        rate = self.current_rate()
        self._count_step(training)
        spatial = (1,) * (len(inputs.shape) - 2)
        if self.data_format == "channels_last":
            noise_shape = (None, *spatial, None)
        else:
            noise_shape = (None, None, *spatial)

        def drop() -> Tensor:
            return self._source(training).dropout(
                inputs, rate, self._seed(), noise_shape
            )

        return if_training(self._is_random(training), drop, lambda: inputs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return `input_shape`, if it is of rank 3, 4 or 5."""
        if len(input_shape) not in (3, 4, 5):
            shape = tuple(input_shape)
            raise ValueError(_validation.message("inputs", "of rank 3, 4 or 5", shape))
        self._rank = len(input_shape)
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {**super().get_config(), "data_format": self.data_format}

    def get_build_config(self) -> dict[str, Any] | None:
        """Return the rank that was seen, for `convert`: Keras has a class for each."""
        if self._rank is None:
            return None
        return {"input_shape": (None,) * self._rank}


@keras.saving.register_keras_serializable(package="kerasnorm")
class KGaussianDropout(RandomLayer):
    """Multiply the inputs by Gaussian noise in training.

    y = r * x with r ~ N(1, rate / (1 - rate)) in training, y = x at inference
    (Srivastava et al. 2014, section 10). r has the mean and the variance of inverted
    dropout's factor.

    Args:
        rate: Fraction that dropout would drop to have the same variance: a float in
            [0, 1), or a schedule as in `KDropout`, clipped to [0, 1 - 2**-16].
        seed: Integer that fixes the noise. Defaults to a random one.
        **kwargs: `name`, `dtype` and other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Floating-point tensor of any rank, or a sparse one.
        training: Whether to add noise, a boolean or a boolean tensor. `fit` gives
            `True`, `predict` `False`.

    Input shape: Any.

    Output shape: The input's.

    Weights:
        steps_seen: As in `KDropout`.

    Raises:
        ValueError: If `rate` is outside of [0, 1): at 1 the variance is infinite.
        TypeError: If an argument is, or the inputs are, of a wrong type.

    Example:

    >>> import keras, kerasnorm
    >>> layer = kerasnorm.KGaussianDropout(0.2, seed=1)
    >>> y = keras.ops.convert_to_numpy(layer(keras.ops.ones((100000,)), training=True))
    >>> round(float(y.mean()), 1), round(float(y.var()), 2)
    (1.0, 0.25)

    References:
        - Srivastava, Hinton, Krizhevsky, Sutskever & Salakhutdinov 2014, JMLR
          15(56):1929-1958, section 10.
    """

    def __init__(
        self,
        rate: float | LearningRateSchedule,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(rate, seed=seed, rate_below_one=True, **kwargs)
        build_at_init(self)

    def call(self, inputs: Tensor, training: Any = False) -> Tensor:
        """Multiply by noise in training."""
        _validation.check_dtype(inputs, ("float",))
        training = _validation.check_training(training)
        rate = self.current_rate()
        self._count_step(training)

        def multiply() -> Tensor:
            function = self._source(training).gaussian_dropout
            if _validation.is_sparse(inputs):
                ones = ops.ones(ops.shape(inputs), inputs.dtype)
                return ops.multiply(inputs, function(ones, rate, self._seed()))
            return backend.on_known_rank(
                lambda x: function(x, rate, self._seed()), inputs
            )

        return if_training(self._is_random(training), multiply, lambda: inputs)


def _check_is_dense(inputs: Tensor) -> None:
    if _validation.is_sparse(inputs):
        raise TypeError(
            _validation.message(
                "inputs",
                "a dense tensor",
                "a sparse one",
                "KGaussianDropout takes one; tf.sparse.to_dense makes it dense.",
            )
        )
