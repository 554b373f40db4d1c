"""What `model.fit` does on one device, done by a team."""

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from training.cluster.step import evaluation_step, train_step
from training.cluster.team import Team, one_line_where_a_worker_is_lost


def fit_together(
    team: Team,
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
    """Train a model on all replicas of a team.

    All workers call it at the same time. The logs are those of the whole batches, the
    same on every worker, so that callbacks decide alike everywhere.

    Args:
        team: The replicas.
        model: What `team.build` returned.
        batches: The batches of the epochs from `initial_epoch` on, in a row.
        steps_per_epoch: As in `model.fit`, like the rest.
        initial_epoch: The number of epochs that are done.
        epochs: The number of epochs in all.
        validation_data: The batches that are evaluated after each epoch.
        callbacks: Called as Keras calls them.
        verbose: 0 for no output, 1 for a progress bar, 2 for a line an epoch.

    Raises:
        UserError: If another worker has ended or cannot be reached.
    """
    train = _on_replicas(team, train_step, model, batches)
    evaluate = _on_replicas(team, evaluation_step, model, validation_data)
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
    with one_line_where_a_worker_is_lost():
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
            sums = np.sum([evaluate(*batch) for batch in validation_data], axis=0)
            logs |= {f"val_{name}": mean for name, mean in _means(sums).items()}
            calls.on_epoch_end(epoch, logs)
            if model.stop_training:
                break
        calls.on_train_end(logs)


def _on_replicas(
    team: Team,
    step: Callable[..., tf.Tensor],
    model: keras.Model,
    data: tf.data.Dataset,
) -> Callable[[tf.Tensor, tf.Tensor], np.ndarray]:
    """Return a function that takes a step on every replica and gives the sums."""

    @tf.function(input_signature=data.element_spec, autograph=False)
    def run(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return team.run(step, model, images, labels)

    return lambda images, labels: run(images, labels).numpy().astype("float64")


def _means(sums: np.ndarray) -> dict[str, float]:
    right, losses, samples = sums.tolist()
    return {"accuracy": right / samples, "loss": losses / samples}
