"""One arm of an experiment: a network that is given its own best learning rate.

The rate is tuned on validation images, with a seed kept for tuning. Then the network is
trained with every seed of the experiment.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from experiments.data import Splits
from experiments.experiment import SEEDS, TUNING_SEED
from experiments.lab import Lab, Measurement
from experiments.trainer import Plan, Trainer, accuracy_on

Trained = TypeVar("Trained")


@dataclass(frozen=True)
class Sizes:
    """The part of a configuration that every arm needs.

    Attributes:
        steps: Of a training.
        batch_size: Images in a step.
        tuning_steps: Of a training that finds the rate.
        every: Steps between two pauses; divides both numbers of steps.
        rates: The learning rates to choose from.
        seeds: One training each.
    """

    steps: int
    batch_size: int
    tuning_steps: int
    every: int
    rates: tuple[float, ...]
    seeds: tuple[int, ...] = SEEDS


@dataclass(frozen=True)
class Arm(Generic[Trained]):
    """An arm, measured through a lab, which trains nothing twice.

    Attributes:
        lab: Keeps the measurements.
        config: The sizes of the experiment.
        key: What tells the arm from the others. Steps, rate and seed are added.
        train: Trains the network by a plan; returns what is scored and measured.
        score: Returns a measurement whose `"score"` is the higher the better.
        decay: Whether the rate falls linearly to 0.
    """

    lab: Lab
    config: Sizes
    key: Mapping[str, Any]
    train: Callable[[Plan], Trained]
    score: Callable[[Trained], Measurement]
    decay: bool = True

    def rate(self) -> float:
        """Return the learning rate with the highest score."""
        steps = self.config.tuning_steps

        def scored(rate: float) -> Measurement:
            return self.score(self.train(self._plan(steps, rate, TUNING_SEED)))

        return self.lab.tune_rate(
            {**self.key, "steps": steps}, self.config.rates, scored
        )

    def with_seeds(
        self,
        measure: Callable[[Trained], Measurement],
        steps: int | None = None,
        seeds: Sequence[int] | None = None,
        **mark: Any,
    ) -> list[Measurement]:
        """Train with every seed, and return what `measure` says of each network.

        Args:
            measure: Measures a trained network.
            steps: Defaults to the configuration's.
            seeds: Defaults to the configuration's.
            mark: Tells these measurements from others of the same networks.
        """
        steps = steps or self.config.steps
        rate = self.rate()

        def measured(seed: int) -> Measurement:
            return measure(self.train(self._plan(steps, rate, seed)))

        key = {**mark, **self.key, "steps": steps, "rate": rate}
        return self.lab.with_seeds(key, seeds or self.config.seeds, measured)

    def _plan(self, steps: int, rate: float, seed: int) -> Plan:
        return Plan(
            steps,
            self.config.batch_size,
            rate,
            seed,
            decay=self.decay,
            every=self.config.every,
        )


def validation_score(data: Splits) -> Callable[[Trainer], Measurement]:
    """Return a score of networks: their accuracy on validation images."""
    return lambda network: {"score": accuracy_on(network, data.validation)}
