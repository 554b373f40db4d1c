"""Batch normalization: `KBatchNorm`."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import keras
from keras import constraints, initializers, ops, regularizers
from keras.optimizers.schedules import LearningRateSchedule

from kerasnorm import _validation, backend, functional
from kerasnorm._keras import all_layers
from kerasnorm.functional import Moments, Shape, Tensor
from kerasnorm.layers import _observe
from kerasnorm.layers._mask import align_mask
from kerasnorm.layers._moving import (
    MOVING_AVERAGES,
    Exponential,
    Moving,
    SquaredStddev,
)
from kerasnorm.layers._recompute import check_is_first_pass, recomputed
from kerasnorm.layers._replicas import normalize_over_replicas
from kerasnorm.layers._schedule import (
    add_step_count,
    deserialize_schedule,
    is_schedule,
    serialize_schedule,
)
from kerasnorm.layers._training import if_training


@keras.saving.register_keras_serializable(package="kerasnorm")
class KBatchNorm(keras.layers.Layer):
    """Normalize the inputs over the mini-batch in training.

    Each index of `axis` is normalized over its m elements (Ioffe & Szegedy 2015):

    - in training (Alg. 1): mean = sum(x) / m, variance = sum((x - mean)^2) / m and
      y = gamma * (x - mean) / sqrt(variance + epsilon) + beta;
    - at inference (Alg. 2): the same with `moving_mean` and `moving_variance`, the
      averages over the batches seen in training.

    The arguments up to `synchronized` are those of
    `keras.layers.BatchNormalization`, at the same places, with the same defaults and
    numbers. A frozen layer (`trainable = False`) normalizes as at inference and
    updates nothing. As everywhere in Keras, a function that is traced already goes on
    as before until `compile` is called again.

    Args:
        axis: Integer or tuple of integers: the axes whose indices have statistics of
            their own, mostly the features. Defaults to -1.
        momentum: Weight of the old value in the moving averages, in [0, 1]. PyTorch's
            `momentum` is 1 minus this one. Defaults to 0.99.
        epsilon: Added to the variance, not negative. Defaults to 1e-3.
        center: Whether beta is added. Defaults to `True`.
        scale: Whether to multiply by gamma. Defaults to `True`.
        beta_initializer, gamma_initializer: Defaults `"zeros"`, `"ones"`.
        moving_mean_initializer, moving_variance_initializer: The same.
        beta_regularizer, gamma_regularizer: Default to `None`.
        beta_constraint, gamma_constraint: Default to `None`.
        renorm: Batch renormalization (Ioffe 2017): in training the output is
            ((x - mean) / stddev * r + d) * gamma + beta. Defaults to `False`.
        renorm_clipping: Dictionary with any of `"rmax"`, `"rmin"`, `"dmax"`, the
            bounds of r and d: floats or
            `keras.optimizers.schedules.LearningRateSchedule`s called with the count
            of training steps seen, whose values below 0 count as 0. The paper's lower
            bound is rmin = 1 / rmax. The paper starts with r = 1 and d = 0, which is
            batch normalization, and relaxes rmax to 3 and dmax to 5. Defaults to no
            bounds, as in Keras; must be `None` without `renorm`.
        renorm_momentum: `momentum` of the averages that r and d refer to. Defaults
            to 0.99.
        synchronized: Whether the replicas of a `tf.distribute` strategy normalize
            their batches as one. The moving statistics are those of all replicas
            either way. Defaults to `False`.
        moving_average: How `moving_mean` and `moving_variance` follow the batches.
            `"exponential"` (default): as in Keras. It starts from the initial 0 and 1,
            and every batch counts the same. `"debiased"`: a batch counts by its samples
            and less with its age, the initial values do not count.
            `"cumulative"`: a batch counts by its samples, however old it is: the
            average of Alg. 2.
        bessel_correction: Whether `moving_variance` averages m / (m - 1) times the
            batch's variance, as in Alg. 2, line 10. Defaults to `False`, as in Keras.
        virtual_batch_size: Samples in a ghost batch (Hoffer et al. 2017). In training
            the batch is split into ghost batches, the last of which may be smaller, and
            each is normalized on its own. The moving statistics follow the whole
            batch. A ghost batch never spans replicas. Defaults to `None`, the whole
            batch.
        **kwargs: `name`, `dtype` and other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Tensor of rank 1 or more.
        training: Whether to use and learn the batch's statistics. A boolean; on the
            TensorFlow backend also a boolean tensor, but not with several replicas,
            which cannot wait for each other in a branch. `fit` gives `True`,
            `predict` `False`.
        mask: Boolean tensor, `True` where a sample counts for the statistics. It has
            the inputs' shape without the last axis, as Keras's masks have; or without
            the normalized axis, if only that fits; or it has the inputs' rank and is
            broadcast. All positions are normalized, whether they count or not. Numbers
            must be 0 or 1; in a traced function, where they are not known, all but 0
            count as `True`.

    Input shape: Any, with fixed sizes at `axis`.

    Output shape: The input's.

    Weights (of the shape of `axis`, float32 whatever the policy, or float64 under a
    float64 policy):
        gamma, beta: Trainable; if `scale`, if `center`.
        moving_mean, moving_variance: Not trainable; updated by calls in training.
        moving_stddev, renorm_mean, renorm_stddev: The same; if `renorm`.
        mean_weight, variance_weight: The samples behind the moving averages; if
            `moving_average` is not `"exponential"`.
        steps_seen: `()`, int32, the count of training steps; if a bound in
            `renorm_clipping` is a schedule.

    An index without a valid sample (an empty batch, all masked) changes none of them.
    With `bessel_correction` a single sample leaves the moving variance as it is.

    Raises:
        ValueError: If an argument is out of its domain, `axis` or `mask` does not fit
            the inputs, or the size at `axis` is unknown.
        TypeError: If an argument is of a wrong type.

    Example:

    >>> import keras, kerasnorm
    >>> layer = kerasnorm.KBatchNorm()
    >>> x = keras.random.normal((100, 3), mean=5.0, stddev=2.0, seed=1)
    >>> y = keras.ops.convert_to_numpy(layer(x, training=True))
    >>> bool(abs(y.mean(0)).max() < 1e-3), bool(abs(y.std(0) - 1).max() < 1e-2)
    (True, True)

    References:
        - Ioffe & Szegedy 2015, arXiv:1502.03167, Alg. 1 and 2.
        - Ioffe 2017, arXiv:1702.03275 (batch renormalization).
        - Hoffer, Hubara & Soudry 2017, arXiv:1705.08741 (ghost batches).
    """

    def __init__(
        self,
        axis: int | tuple[int, ...] = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        renorm: bool = False,
        renorm_clipping: dict[str, float | LearningRateSchedule] | None = None,
        renorm_momentum: float = 0.99,
        synchronized: bool = False,
        *,
        moving_average: str = "exponential",
        bessel_correction: bool = False,
        virtual_batch_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.axis = _validation.check_axis(axis)
        self.momentum = _validation.check_fraction("momentum", momentum)
        self.epsilon = _validation.check_real(
            "epsilon", epsilon, "a float not below 0", minimum=0.0
        )
        self.center = _validation.check_boolean("center", center)
        self.scale = _validation.check_boolean("scale", scale)
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)
        self.beta_regularizer = regularizers.get(beta_regularizer)
        self.gamma_regularizer = regularizers.get(gamma_regularizer)
        self.beta_constraint = constraints.get(beta_constraint)
        self.gamma_constraint = constraints.get(gamma_constraint)
        self.renorm = _validation.check_boolean("renorm", renorm)
        self.renorm_clipping = _validation.check_renorm_clipping(
            renorm_clipping, self.renorm
        )
        self.renorm_momentum = _validation.check_fraction(
            "renorm_momentum", renorm_momentum
        )
        self.synchronized = _validation.check_synchronized(synchronized)
        self.moving_average = _validation.check_choice(
            "moving_average", moving_average, MOVING_AVERAGES
        )
        self._average = MOVING_AVERAGES[self.moving_average]
        self.bessel_correction = _validation.check_boolean(
            "bessel_correction", bessel_correction
        )
        self.virtual_batch_size = (
            None
            if virtual_batch_size is None
            else _validation.check_positive_integer(
                "virtual_batch_size", virtual_batch_size
            )
        )
        self.supports_masking = True
        self.gamma: Any = None
        self.beta: Any = None
        self.mean_weight: Any = None
        self.variance_weight: Any = None
        self.steps_seen: Any = None

    def build(self, input_shape: Shape) -> None:
        """Create the weights, in the order of the built-in layer."""
        rank = len(input_shape)
        self._axes = _validation.check_axes_fit(self.axis, input_shape)
        self.reduction_axes = tuple(a for a in range(rank) if a not in self._axes)
        if self.virtual_batch_size is not None and 0 in self._axes:
            raise ValueError(
                _validation.message(
                    "axis", "without the first axis with ghost batches", self.axis
                )
            )
        self.input_spec = keras.layers.InputSpec(
            ndim=rank, axes={a: input_shape[a] for a in self._axes}
        )
        add_weight = functools.partial(
            self.add_weight,
            shape=tuple(input_shape[a] for a in self._axes),
            dtype=functional.widened(self.variable_dtype),
            autocast=False,
        )
        # The replicas compute the same values.
        add_moving = functools.partial(
            add_weight, trainable=False, aggregation="only_first_replica"
        )
        if self.scale:
            self.gamma = add_weight(
                name="gamma",
                initializer=self.gamma_initializer,
                regularizer=self.gamma_regularizer,
                constraint=self.gamma_constraint,
            )
        if self.center:
            self.beta = add_weight(
                name="beta",
                initializer=self.beta_initializer,
                regularizer=self.beta_regularizer,
                constraint=self.beta_constraint,
            )
        mean_initializer = self.moving_mean_initializer
        variance_initializer = self.moving_variance_initializer
        self.moving_mean = add_moving(name="moving_mean", initializer=mean_initializer)
        self.moving_variance = add_moving(
            name="moving_variance", initializer=variance_initializer
        )
        if self.renorm:

            def stddev_initializer(shape: Shape, dtype: str | None = None) -> Tensor:
                return ops.sqrt(variance_initializer(shape, dtype=dtype))

            self.moving_stddev = add_moving(
                name="moving_stddev", initializer=stddev_initializer
            )
            self.renorm_mean = add_moving(
                name="renorm_mean", initializer=mean_initializer
            )
            self.renorm_stddev = add_moving(
                name="renorm_stddev", initializer=stddev_initializer
            )
        if self._average.is_weighted:
            self.mean_weight = add_moving(name="mean_weight", initializer="zeros")
            self.variance_weight = add_moving(
                name="variance_weight", initializer="zeros"
            )
        if any(map(is_schedule, self.renorm_clipping.values())):
            self.steps_seen = add_step_count(self)

    def call(
        self, inputs: Tensor, training: Any = None, mask: Tensor | None = None
    ) -> Tensor:
        """Normalize with the batch's statistics in training, else the moving ones."""
        _validation.check_dtype(inputs, ("float", "int"))
        training = _validation.check_training(training)
        is_float = keras.backend.is_float_dtype(inputs.dtype)
        x = inputs if is_float else functional.widen(inputs)
        mask = align_mask(mask, x, self._axes[-1])
        y = if_training(
            training if self.trainable else False,
            lambda: self._normalize_batch(x, mask),
            lambda: backend.normalize_with(
                x,
                self.reduction_axes,
                self.moving_mean,
                self.moving_variance,
                self.gamma,
                self.beta,
                self.epsilon,
            ),
        )
        _observe.show(self, x, y, mask)
        return ops.cast(y, self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return `input_shape`, if `axis` fits it."""
        _validation.check_axes_fit(self.axis, input_shape)
        return input_shape

    def rematerialized_call(self, layer_call: Any, *args: Any, **kwargs: Any) -> Any:
        """Let a `keras.RematScope` count a batch once."""
        if super().rematerialized_call(layer_call, *args, **kwargs) is layer_call:
            return layer_call
        return recomputed(self, layer_call)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {
            **super().get_config(),
            "axis": self.axis,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            "beta_initializer": initializers.serialize(self.beta_initializer),
            "gamma_initializer": initializers.serialize(self.gamma_initializer),
            "moving_mean_initializer": initializers.serialize(
                self.moving_mean_initializer
            ),
            "moving_variance_initializer": initializers.serialize(
                self.moving_variance_initializer
            ),
            "beta_regularizer": regularizers.serialize(self.beta_regularizer),
            "gamma_regularizer": regularizers.serialize(self.gamma_regularizer),
            "beta_constraint": constraints.serialize(self.beta_constraint),
            "gamma_constraint": constraints.serialize(self.gamma_constraint),
            "renorm": self.renorm,
            "renorm_clipping": {
                bound: serialize_schedule(value)
                for bound, value in self.renorm_clipping.items()
            }
            or None,
            "renorm_momentum": self.renorm_momentum,
            "synchronized": self.synchronized,
            "moving_average": self.moving_average,
            "bessel_correction": self.bessel_correction,
            "virtual_batch_size": self.virtual_batch_size,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "KBatchNorm":
        """Make the layer that `get_config` describes."""
        clipping = {
            bound: deserialize_schedule(value)
            for bound, value in (config.get("renorm_clipping") or {}).items()
        }
        if not config.get("renorm", False):
            clipping = {}  # once it was taken and saved without `renorm`
        return cls(**{**config, "renorm_clipping": clipping or None})

    def _normalize_batch(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Normalize with the batch's statistics, and learn them."""
        check_is_first_pass(self)
        axes = self.reduction_axes
        if self.virtual_batch_size is not None:
            y, batch = self._normalize_ghost_batches(x, self.virtual_batch_size, mask)
            batch = backend.pool_replicas(batch)
        elif self.synchronized:
            y, batch = self._normalize(normalize_over_replicas, x, axes, mask)
        else:
            y, batch = self._normalize(backend.normalize_batch, x, axes, mask)
            batch = backend.pool_replicas(batch)
        self._update_statistics(batch)
        return y

    def _normalize_ghost_batches(
        self, x: Tensor, size: int, mask: Tensor | None
    ) -> tuple[Tensor, Moments]:
        parts, mask = functional.ghost_batches(x, size, mask)
        axes = tuple(axis + 1 for axis in self.reduction_axes)
        y, batch = self._normalize(functional.normalize_batch, parts, axes, mask)
        samples, *sizes = ops.shape(x)
        y = ops.reshape(y, (-1, *sizes))[:samples]
        return y, functional.pool_moments(batch)

    def _normalize(
        self,
        normalize_batch: Callable[..., tuple[Tensor, Moments]],
        x: Tensor,
        axes: tuple[int, ...],
        mask: Tensor | None,
    ) -> tuple[Tensor, Moments]:
        if not self.renorm and self.virtual_batch_size is None:
            return normalize_batch(x, axes, self.gamma, self.beta, self.epsilon, mask)
        wide = functional.widen(x)
        x_hat, batch = normalize_batch(wide, axes, None, None, self.epsilon, mask)
        gamma, beta = self._gamma_and_beta(batch)
        y = x_hat * ops.expand_dims(gamma, axes) + ops.expand_dims(beta, axes)
        return ops.cast(y, x.dtype), batch

    def _gamma_and_beta(self, batch: Moments) -> tuple[Tensor, Tensor]:
        """Return the scale and shift of x_hat: (x_hat * r + d) * gamma + beta."""
        scale, shift = ops.ones_like(batch.mean), ops.zeros_like(batch.mean)
        if self.renorm:
            scale, shift = self._renorm_correction(batch)
        if self.gamma is not None:
            gamma = ops.cast(self.gamma, scale.dtype)
            scale, shift = scale * gamma, shift * gamma
        if self.beta is not None:
            shift = shift + ops.cast(self.beta, shift.dtype)
        return functional.saturate(scale), functional.saturate(shift)

    def _renorm_correction(self, batch: Moments) -> tuple[Tensor, Tensor]:
        dtype = batch.mean.dtype
        bounds = {
            name: ops.maximum(ops.cast(bound(self.steps_seen.value), dtype), 0.0)
            if is_schedule(bound)
            else bound
            for name, bound in self.renorm_clipping.items()
        }
        return functional.renorm_correction(
            batch.mean,
            ops.sqrt(batch.variance + self.epsilon),
            ops.cast(self.renorm_mean, dtype),
            ops.maximum(ops.cast(self.renorm_stddev, dtype), self.epsilon**0.5),
            **bounds,
        )

    def _update_statistics(self, batch: Moments) -> None:
        for statistic, value, samples in self._moving_statistics(batch):
            statistic.follow(value, samples)
        if self.steps_seen is not None:
            self.steps_seen.assign_add(ops.cast(ops.any(batch.count > 0), "int32"))

    def assign_population(self, population: Moments) -> None:
        """Replace the moving statistics by those of all samples."""
        for statistic, value, samples in self._moving_statistics(population):
            statistic.restart(value, samples)

    def _moving_statistics(self, batch: Moments) -> list[tuple[Moving, Tensor, Tensor]]:
        """Return each moving statistic, its value in `batch` and that value's samples.

        An unbiased variance of m samples counts as m - 1.
        """
        dtype = self.moving_mean.dtype
        count = batch.count
        # A count that is no tensor is one for all, and positive.
        if ops.is_tensor(count) or self.bessel_correction:
            count = ops.cast(count, dtype)
        # What is too large for the dtype must not make NaN of an average.
        mean, variance = (
            functional.saturate(ops.cast(moment, dtype)) for moment in batch[1:]
        )
        degrees = count
        stddev = ops.sqrt(variance + self.epsilon) if self.renorm else None
        if self.bessel_correction:
            variance = functional.unbiased_variance(count, variance)
            degrees = count - 1
        average = functools.partial(self._average, momentum=self.momentum)
        moving_mean = average(self.moving_mean, self.mean_weight)
        if not self.renorm:
            moving_variance = average(self.moving_variance, self.variance_weight)
            return [(moving_mean, mean, count), (moving_variance, variance, degrees)]
        moving_stddev = average(self.moving_stddev, self.variance_weight)
        squared = SquaredStddev(self.moving_variance, moving_stddev, self.epsilon)
        renorm_mean, renorm_stddev = (
            Exponential(variable, None, self.renorm_momentum)
            for variable in (self.renorm_mean, self.renorm_stddev)
        )
        return [
            (moving_mean, mean, count),
            (squared, variance, degrees),
            (renorm_mean, mean, count),
            (renorm_stddev, stddev, count),
        ]


def batch_norms(model: keras.Model) -> list[KBatchNorm]:
    """Return every KBatchNorm in a model, however deep."""
    return [layer for layer in all_layers(model) if isinstance(layer, KBatchNorm)]


def warn_of_keras_own(model: keras.Model, what_is_done: str) -> None:
    """Warn of a BatchNormalization of Keras in a model, with which nothing is done."""
    kind = keras.layers.BatchNormalization
    theirs = [layer for layer in all_layers(model) if isinstance(layer, kind)]
    if theirs:
        name = theirs[0].path or theirs[0].name
        warnings.warn(
            f"{model.name!r} has {len(theirs)} BatchNormalization of Keras beside "
            f"KBatchNorm, such as {name!r}. Those are not {what_is_done}. "
            "`kerasnorm.convert` makes KBatchNorm of them.",
            stacklevel=3,
        )


KBatchNormalization = KBatchNorm
