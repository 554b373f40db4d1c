"""Replicas that train one model together, on one machine or on many.

Every worker reads the whole of every batch, in the order that the seed gives, and each
of its replicas takes its part. So N workers go through the very batches of one worker,
the smaller last batch of an epoch included.

The chief alone reports, saves and exports. The other workers read the directory of a
run once, to restore what the chief has saved there. So a run can be resumed if all
workers see its directory, in a shared file system.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import TypeVar

import keras
import tensorflow as tf

from training.cluster.devices import strategy
from training.cluster.step import sum_over_replicas
from training.config import TrainConfig
from training.errors import UserError

T = TypeVar("T")

# What TensorFlow says when another worker is gone depends on what it waits for.
_LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)
# The chief may evaluate for as long as it takes; heartbeats notice a dead worker.
_ANY_TIME = tf.distribute.experimental.CommunicationOptions(timeout_seconds=0.0)


class Team:
    """The replicas of a job; this process is one of its workers.

    Args:
        config: The options of the job.

    Raises:
        UserError: If the job asks for devices or machines that are not there.
    """

    def __init__(self, config: TrainConfig) -> None:
        with one_line_where_a_worker_is_lost():
            self._strategy = strategy(config)
        self.is_one_device = config.distribute == "none"
        self.is_chief = True
        if config.distribute == "multiworker":
            own = self._strategy.cluster_resolver
            chief = "chief" if "chief" in own.cluster_spec().jobs else "worker"
            self.is_chief = (own.task_type, own.task_id) == (chief, 0)

    def build(self, make: Callable[[], T]) -> T:
        """Make a compiled model or an optimizer, its variables on every replica."""
        with one_line_where_a_worker_is_lost(), self._strategy.scope():
            return make()

    def run(self, step: Callable[..., tf.Tensor], *arguments: object) -> tf.Tensor:
        """Call a function on every replica.

        Returns:
            The result of this worker's first replica.
        """
        results = self._strategy.run(step, arguments)
        return self._strategy.experimental_local_results(results)[0]

    def barrier(self) -> None:
        """Wait until all workers have come here."""
        self.all_equal(0)

    def all_equal(self, number: int) -> bool:
        """Wait for all workers; return on each whether all gave the same number."""

        def values() -> tf.Tensor:
            """Return the numbers of all replicas; each adds its own to zeros."""
            replica = tf.distribute.get_replica_context()
            place = tf.one_hot(
                replica.replica_id_in_sync_group,
                replica.num_replicas_in_sync,
                dtype="float64",
            )
            return sum_over_replicas(number * place, _ANY_TIME)

        @tf.function(autograph=False)
        def gather() -> tf.Tensor:
            return self.run(values)

        with one_line_where_a_worker_is_lost():
            return len(set(gather().numpy())) == 1

    def chief_first(self, prepare: Callable[[], T]) -> T:
        """Call a function, on the chief before the other workers."""
        if not self.is_chief:
            self.barrier()
        result = prepare()
        if self.is_chief:
            self.barrier()
        return result


def copy_variables(trained: keras.Model, model: keras.Model) -> keras.Model:
    """Give a model the variables of another one that has been built alike.

    With several workers Keras's `evaluate` and `predict` fail, and saving would wait
    for all of them. The copy belongs to this process alone.

    Returns:
        `model`.
    """
    for own, other in zip(
        [*model.variables, *model.optimizer.variables],
        [*trained.variables, *trained.optimizer.variables],
        strict=True,
    ):
        own.assign(keras.ops.convert_to_numpy(other))
    return model


@contextlib.contextmanager
def one_line_where_a_worker_is_lost() -> Iterator[None]:
    """Turn the many lines that TensorFlow says when a worker is gone into one.

    Raises:
        UserError: If another worker has ended or cannot be reached.
    """
    try:
        yield
    except _LOST as error:
        reason = re.search(r"aborted by: (.+)", error.message)
        raise UserError(
            "Another worker has ended or cannot be reached "
            f"({reason[1] if reason else type(error).__name__})."
        ) from error
