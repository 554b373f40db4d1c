"""What the dropout layers share: a rate, and random state that is saved."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from kerasnorm import _validation, backend, functional
from kerasnorm._scoped import Scoped
from kerasnorm._words import int32
from kerasnorm.functional import MASK_BITS, Shape, Tensor
from kerasnorm.layers._export import check_masks_move_on
from kerasnorm.layers._recompute import check_is_first_pass, recomputed
from kerasnorm.layers._schedule import (
    add_step_count,
    deserialize_schedule,
    is_schedule,
    serialize_schedule,
)

_MONTE_CARLO: Scoped[Mapping["RandomLayer", bool]] = Scoped({})
"""What `monte_carlo_is` says of layers, in this thread."""


class NoiseSource(Protocol):
    """The functions that draw noise: `kerasnorm.backend` or `kerasnorm.functional`."""

    def dropout(
        self,
        x: Tensor,
        rate: float | Tensor,
        seed: Tensor,
        noise_shape: Shape | None = None,
    ) -> Tensor:
        """Return `functional.dropout`'s result."""

    def thinning(
        self,
        x: Tensor,
        rate: float | Tensor,
        seed: Tensor,
        noise_shape: Shape | None = None,
    ) -> Tensor:
        """Return `functional.thinning`'s result."""

    def gaussian_dropout(self, x: Tensor, rate: float | Tensor, seed: Tensor) -> Tensor:
        """Return `functional.gaussian_dropout`'s result."""


class RandomLayer(keras.layers.Layer):
    """A layer with a `rate` that draws noise in training.

    Its random state, `seed_generator.state`, holds the seed and the number of draws. It
    belongs to `variables`, not to `weights`, as in Keras's layers. Unlike theirs it is
    saved by `.keras`, `.weights.h5` and `tf.train.Checkpoint`: a resumed run draws what
    the uninterrupted run would have drawn.
    """

    def __init__(
        self,
        rate: float | LearningRateSchedule,
        seed: int | None = None,
        rate_below_one: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._rate_below_one = rate_below_one
        self.rate = rate
        self.seed = _validation.check_seed(seed)
        self.monte_carlo = False
        self.supports_masking = True
        self.seed_generator = keras.random.SeedGenerator(_state_of(self.seed))
        if is_schedule(self.rate):
            self.steps_seen = add_step_count(self)

    @property
    def rate(self) -> float | LearningRateSchedule:
        """The fraction dropped: a float, or a schedule of the training steps seen.

        A new value counts from the next call. A function that was traced before, as
        by `compile` and `fit`, keeps the old one: compile again, or use a schedule.
        """
        return self._rate

    @rate.setter
    def rate(self, rate: float | LearningRateSchedule) -> None:
        rate = _validation.check_rate(rate, below_one=self._rate_below_one)
        if is_schedule(rate) and not is_schedule(getattr(self, "_rate", rate)):
            raise ValueError(
                "`rate` must be a float once the layer is made. Received: "
                f"rate={rate!r}. Give a schedule when the layer is made."
            )
        self._rate = rate

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return `input_shape`."""
        return input_shape

    def rematerialized_call(self, layer_call: Any, *args: Any, **kwargs: Any) -> Any:
        """Let a `keras.RematScope` draw the same mask again."""
        if super().rematerialized_call(layer_call, *args, **kwargs) is layer_call:
            return layer_call
        return recomputed(self, layer_call)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {
            **super().get_config(),
            "rate": serialize_schedule(self.rate),
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "RandomLayer":
        """Make the layer that `get_config` describes."""
        return cls(**{**config, "rate": deserialize_schedule(config["rate"])})

    def save_own_variables(self, store: Any) -> None:
        """Save the weights and the random state."""
        super().save_own_variables(store)
        store["seed_state"] = self.seed_generator.state

    def load_own_variables(self, store: Any) -> None:
        """Load the weights, and the random state if the file has one.

        A file of the built-in layers has none.
        """
        saved = {key: store[key] for key in store.keys()}  # noqa: SIM118
        seed_state = saved.pop("seed_state", None)
        super().load_own_variables(saved)
        if seed_state is not None:
            self.seed_generator.state.assign(seed_state)

    def _trackable_children(
        self, save_type: str = "checkpoint", **kwargs: Any
    ) -> dict[str, Any]:
        """Return what `tf.train.Checkpoint` saves: the random state too.

        TensorFlow calls this, and has no public way to add a child. A SeedGenerator is
        not trackable; its variable is.
        """
        children = super()._trackable_children(save_type, **kwargs)
        return {**children, "seed_state": self.seed_generator.state}

    def _is_random(self, training: Any) -> Any:
        """Return whether to draw noise; a tensor if `training` is one and decides."""
        if is_schedule(self.rate) or self.rate > 0:
            given = _MONTE_CARLO.get().get(self)
            if given is None and self.monte_carlo:
                check_masks_move_on(self.name)
            return True if (self.monte_carlo if given is None else given) else training
        return False

    def _seed(self) -> Tensor:
        """Return the seed of the next draw, which is this replica's own."""
        check_is_first_pass(self)
        return backend.replica_seed(backend.next_seed(self.seed_generator))

    def _source(self, training: Any) -> NoiseSource:
        """Return where the noise comes from: the backend in training, to be fast.

        Noise at inference must run wherever an exported model runs, also without XLA.
        """
        return backend if ops.is_tensor(training) or training else functional

    def current_rate(self) -> float | Tensor:
        """Return the rate at this step; clip a schedule's to the domain of `rate`."""
        if not is_schedule(self.rate):
            return self.rate
        maximum = 1.0 - 2.0**-MASK_BITS if self._rate_below_one else 1.0
        return ops.clip(self.rate(self.steps_seen.value), 0.0, maximum)

    def _count_step(self, training: Any) -> None:
        if is_schedule(self.rate) and (ops.is_tensor(training) or training):
            self.steps_seen.assign_add(ops.cast(training, "int32"))


def monte_carlo_is(
    value: bool, layers: Iterable[RandomLayer]
) -> AbstractContextManager[None]:
    """Let the layers take `value` for their `monte_carlo` in the block.

    They do so in this thread. Another one that calls them meanwhile sees nothing of it.
    """
    return _MONTE_CARLO.holds({**_MONTE_CARLO.get(), **dict.fromkeys(layers, value)})


def _state_of(seed: int | None) -> int | None:
    """Return the low 32 bits of a seed, on which the draws depend, for the state.

    Keras's state is an int64 on TensorFlow, a uint32 on JAX and an int32 on PyTorch. It
    refuses what does not fit.
    """
    if seed is None:
        return None
    low = seed % 2**32
    return int32(low) if keras.backend.backend() == "torch" else low
