"""How the moving statistics of batch normalization follow the batches.

`follow` takes in one more batch. `restart` forgets all batches before, and leaves what
this batch alone would have left. Neither changes an index without a sample.
"""

import dataclasses
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from keras import ops

from kerasnorm import functional
from kerasnorm.functional import Tensor


class Moving(ABC):
    """A moving statistic."""

    @abstractmethod
    def follow(self, batch: Tensor, samples: Tensor) -> None:
        """Take in the statistic of a batch, weighted by its samples."""

    @abstractmethod
    def restart(self, batch: Tensor, samples: Tensor) -> None:
        """Replace the average by the statistic of a batch."""


@dataclasses.dataclass
class MovingAverage(Moving):
    """An average over batches.

    Args:
        value: The variable that holds the average.
        weight: The variable that holds the samples behind it; if `is_weighted`.
        momentum: Weight of the old value.
    """

    value: Any
    weight: Any
    momentum: float
    is_weighted: ClassVar[bool] = True

    def _assign(self, samples: Tensor, value: Tensor, weight: Tensor) -> None:
        _assign_where(samples > 0, self.value, value)
        _assign_where(samples > 0, self.weight, weight)


class Exponential(MovingAverage):
    """`functional.exponential_average`: all batches count alike, as in Keras."""

    is_weighted = False

    def follow(self, batch: Tensor, samples: Tensor) -> None:
        """Take in the statistic of a batch, weighted by its samples."""
        average = functional.exponential_average(self.value.value, batch, self.momentum)
        _assign_where(samples > 0, self.value, average)

    def restart(self, batch: Tensor, samples: Tensor) -> None:
        """Replace the average by the statistic of a batch."""
        _assign_where(samples > 0, self.value, batch)


class Debiased(MovingAverage):
    """`functional.debiased_average`: weighted by samples and by age."""

    def follow(self, batch: Tensor, samples: Tensor) -> None:
        """Take in the statistic of a batch, weighted by its samples."""
        average, weight = functional.debiased_average(
            self.value.value, self.weight.value, batch, samples, self.momentum
        )
        self._assign(samples, average, weight)

    def restart(self, batch: Tensor, samples: Tensor) -> None:
        """Replace the average by the statistic of a batch."""
        self._assign(samples, batch, (1.0 - self.momentum) * samples)


class Cumulative(MovingAverage):
    """`functional.cumulative_average`: weighted by samples, however old."""

    def follow(self, batch: Tensor, samples: Tensor) -> None:
        """Take in the statistic of a batch, weighted by its samples."""
        average, weight = functional.cumulative_average(
            self.value.value, self.weight.value, batch, samples
        )
        self._assign(samples, average, weight)

    def restart(self, batch: Tensor, samples: Tensor) -> None:
        """Replace the average by the statistic of a batch."""
        self._assign(samples, batch, samples)


@dataclasses.dataclass
class SquaredStddev(Moving):
    """The moving variance of batch renormalization: the average stddev, squared.

    Args:
        value: The variable that holds the moving variance.
        stddev: The average of sqrt(variance + epsilon).
        epsilon: The layer's.
    """

    value: Any
    stddev: MovingAverage
    epsilon: float

    def follow(self, batch: Tensor, samples: Tensor) -> None:
        """Take in the variance of a batch, weighted by its samples."""
        self.stddev.follow(ops.sqrt(batch + self.epsilon), samples)
        variance = ops.relu(ops.square(self.stddev.value) - self.epsilon)
        _assign_where(samples > 0, self.value, variance)

    def restart(self, batch: Tensor, samples: Tensor) -> None:
        """Replace the average by the variance of a batch."""
        self.stddev.restart(ops.sqrt(batch + self.epsilon), samples)
        _assign_where(samples > 0, self.value, batch)


MOVING_AVERAGES: dict[str, type[MovingAverage]] = {
    "exponential": Exponential,
    "debiased": Debiased,
    "cumulative": Cumulative,
}
"""By the layer's argument `moving_average`."""


def _assign_where(valid: bool | Tensor, variable: Any, value: Tensor) -> None:
    """Assign to the indices of `variable` that are `valid`: to all, if it is `True`."""
    if valid is not True:
        value = ops.where(valid, value, variable.value)
    variable.assign(value)
