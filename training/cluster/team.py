"""Replicas that train one model together, on one machine or on many.

Every worker reads the whole of every batch, in the order that the seed gives, and each
of its replicas takes its part: so N workers go through the very batches of one, the
smaller last one of an epoch included. A part's loss is divided by the size of the
whole batch, and the optimizer adds up the parts' gradients.

The chief alone reports, saves and exports. The other workers read the directory of a
run once, to restore what the chief has saved there; so a run can be resumed where all
workers see its directory, in a shared file system.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import keras
import numpy as np
import tensorflow as tf

from training.cluster.devices import strategy
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
# However long the chief takes to evaluate: that a worker is dead is noticed anyhow.
_ANY_TIME = tf.distribute.experimental.CommunicationOptions(timeout_seconds=0.0)


class Team:
    """The replicas of a job; this process is one of its workers.

    Args:
        config: The options of the job.

    Raises:
        UserError: If there are not the devices or machines that it asks for.
    """

    def __init__(self, config: TrainConfig) -> None:
        with _told_in_one_line():
            self._strategy = strategy(config)
        self.is_one_device = config.distribute == "none"
        self.is_chief = True
        if config.distribute == "multiworker":
            own = self._strategy.cluster_resolver
            chief = "chief" if "chief" in own.cluster_spec().jobs else "worker"
            self.is_chief = (own.task_type, own.task_id) == (chief, 0)

    def build(self, model: Callable[[], keras.Model]) -> keras.Model:
        """Makes a compiled model, its variables on every replica."""
        with _told_in_one_line(), self._strategy.scope():
            return model()

    def wait(self) -> None:
        """Waits until all workers have come here."""
        self.is_same(0)

    def is_same(self, number: int) -> bool:
        """Whether all workers, which wait for each other, have the same number."""

        def own() -> tf.Tensor:
            return _sum_over_replicas(tf.constant(number, "float64"), _ANY_TIME)

        @tf.function(autograph=False)
        def add() -> tf.Tensor:
            return self._first(self._strategy.run(own))

        with _told_in_one_line():
            total = float(add())
        return total == number * self._strategy.num_replicas_in_sync

    def chief_first(self, prepare: Callable[[], T]) -> T:
        """Calls a function, on the chief before the other workers."""
        if not self.is_chief:
            self.wait()
        result = prepare()
        if self.is_chief:
            self.wait()
        return result

    def fit(
        self,
        model: keras.Model,
        batches: tf.data.Dataset,
        *,
        steps_per_epoch: int,
        initial_epoch: int,
        epochs: int,
        validation_data: tf.data.Dataset,
        callbacks: Sequence[keras.callbacks.Callback],
        verbose: int,
    ) -> None:
        """Does what `model.fit` does on one device, with these of its arguments.

        All workers call it at the same time. The logs are those of the whole batches,
        the same on every worker, so that callbacks decide alike everywhere.

        Raises:
            UserError: If another worker has ended or cannot be reached.
        """
        train = self._on_replicas(_train_step, model, batches)
        test = self._on_replicas(_test_step, model, validation_data)
        calls = keras.callbacks.CallbackList(
            callbacks,
            add_progbar=verbose != 0,
            model=model,
            verbose=verbose,
            epochs=epochs,
            steps=steps_per_epoch,
        )
        model.stop_training = False
        logs: dict[str, float] = {}
        with _told_in_one_line():
            calls.on_train_begin()
            iterator = iter(batches)
            for epoch in range(initial_epoch, epochs):
                calls.on_epoch_begin(epoch)
                sums = np.zeros(3)
                for step in range(steps_per_epoch):
                    calls.on_train_batch_begin(step)
                    sums += train(*next(iterator))
                    logs = _means(sums)
                    calls.on_train_batch_end(step, logs)
                sums = np.sum([test(*batch) for batch in validation_data], axis=0)
                logs |= {f"val_{name}": mean for name, mean in _means(sums).items()}
                calls.on_epoch_end(epoch, logs)
                if model.stop_training:
                    break
            calls.on_train_end(logs)

    def _on_replicas(
        self, step: Callable[..., tf.Tensor], model: keras.Model, data: tf.data.Dataset
    ) -> Callable[[tf.Tensor, tf.Tensor], np.ndarray]:
        """A step that every replica takes with its part of a batch; the sums."""

        @tf.function(input_signature=data.element_spec, autograph=False)
        def run(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
            return self._first(self._strategy.run(step, (model, images, labels)))

        return lambda images, labels: run(images, labels).numpy().astype("float64")

    def _first(self, results: tf.Tensor) -> tf.Tensor:
        """The result of this worker's first replica."""
        return self._strategy.experimental_local_results(results)[0]


def copy(trained: keras.Model, model: keras.Model) -> keras.Model:
    """Gives a model the variables of another one that has been built alike.

    With several workers Keras's `evaluate` and `predict` fail, and saving would wait
    for all of them; a copy belongs to this process alone.
    """
    for own, other in zip(
        [*model.variables, *model.optimizer.variables],
        [*trained.variables, *trained.optimizer.variables],
        strict=True,
    ):
        own.assign(keras.ops.convert_to_numpy(other))
    return model


def _train_step(model: keras.Model, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    size = tf.cast(tf.shape(labels)[0], "float32")
    images, labels, weight = _own_part(images, labels)
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        losses = model.loss.call(labels, logits)
        loss = weight * tf.reduce_sum(losses) / size
    gradients = tape.gradient(loss, model.trainable_variables)
    # The optimizer adds up the gradients of all replicas.
    model.optimizer.apply_gradients(
        zip(gradients, model.trainable_variables, strict=True)
    )
    return _sums(labels, logits, losses, weight)


def _test_step(model: keras.Model, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    images, labels, weight = _own_part(images, labels)
    logits = model(images, training=False)
    return _sums(labels, logits, model.loss.call(labels, logits), weight)


def _own_part(
    images: tf.Tensor, labels: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """This replica's samples, and the weight of each.

    The parts' sizes differ by one at most. None is empty, since on a CPU TensorFlow
    gives the convolution of an empty batch a wrong shape: where there are fewer
    samples than replicas, every replica has all of them at a fraction of the weight.
    """
    replica = tf.distribute.get_replica_context()
    rank, number = replica.replica_id_in_sync_group, replica.num_replicas_in_sync
    size = tf.shape(labels)[0]
    is_split = size >= number
    first = tf.where(is_split, rank * size // number, 0)
    last = tf.where(is_split, (rank + 1) * size // number, size)
    weight = tf.where(is_split, 1.0, 1.0 / number)
    return images[first:last], labels[first:last], weight


def _sums(
    labels: tf.Tensor, logits: tf.Tensor, losses: tf.Tensor, weight: tf.Tensor
) -> tf.Tensor:
    """The right answers, the losses and the samples of all replicas."""
    right = keras.metrics.sparse_categorical_accuracy(labels, logits)
    parts = [right, losses, tf.ones_like(losses)]
    own = weight * tf.stack([tf.reduce_sum(part) for part in parts])
    return _sum_over_replicas(own)


def _means(sums: np.ndarray) -> dict[str, float]:
    right, losses, samples = sums.tolist()
    return {"accuracy": right / samples, "loss": losses / samples}


def _sum_over_replicas(
    value: tf.Tensor,
    options: tf.distribute.experimental.CommunicationOptions | None = None,
) -> tf.Tensor:
    replica = tf.distribute.get_replica_context()
    return replica.all_reduce(tf.distribute.ReduceOp.SUM, value, options)


@contextlib.contextmanager
def _told_in_one_line() -> Iterator[None]:
    """What TensorFlow says in many lines when another worker is gone."""
    try:
        yield
    except _LOST as error:
        reason = re.search(r"aborted by: (.+)", error.message)
        raise UserError(
            "Another worker has ended or cannot be reached "
            f"({reason[1] if reason else type(error).__name__})."
        ) from error
