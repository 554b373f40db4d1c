"""The exponential moving average of the weights: `--ema`."""

import keras
import tensorflow as tf


class WeightAverage(keras.callbacks.Callback):
    """Average the weights over the steps, and evaluate the averages.

    From the validation of an epoch to the beginning of the next one the model has the
    averages: for the callbacks that are called in between, in a checkpoint and when
    training has ended. Keras's optimizers average trainable weights alone, and its
    `SwapEMAWeights` rounds the weights where it swaps them. Batch normalization's
    moving statistics are averaged here as well, for they belong to the weights with
    which they were seen.

    The first steps count more, so that the initial weights are soon forgotten: of an
    average a step leaves `decay`, but at most (1 + steps) / (10 + steps).

    Args:
        model: The model, built.
        decay: What a step leaves of an average, in [0, 1).

    Attributes:
        saved: What a checkpoint keeps of it: the averages, or the weights while the
            model has the averages, and the number of steps.
    """

    def __init__(self, model: keras.Model, decay: float) -> None:
        super().__init__()
        values = [weight.value for weight in model.weights]
        self._weights = [value for value in values if value.dtype.is_floating]
        self._others = [tf.Variable(w, trainable=False) for w in self._weights]
        self._steps = tf.Variable(0, trainable=False, dtype=tf.int64)
        self.saved = tf.train.Checkpoint(others=self._others, steps=self._steps)
        self._decay = decay
        self._is_in_model = False
        self._step = tf.function(self._add_weights, autograph=False)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Know what a model has that has been trained before."""
        self._is_in_model = bool(self._steps > 0)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Give the model its weights."""
        if self._is_in_model:
            self._swap()

    def on_train_batch_end(
        self, batch: int, logs: dict[str, float] | None = None
    ) -> None:
        """Add the weights to the averages."""
        self._step()

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        """Give the model the averages."""
        if not self._is_in_model:
            self._swap()

    def _add_weights(self) -> None:
        steps = tf.cast(self._steps.assign_add(1), tf.float32)
        decay = tf.minimum(self._decay, (1 + steps) / (10 + steps))
        for average, weight in zip(self._others, self._weights, strict=True):
            # A weight that stays as it is stays so to the bit.
            change = (weight - average) * tf.cast(1 - decay, weight.dtype)
            average.assign_add(change)

    def _swap(self) -> None:
        for weight, other in zip(self._weights, self._others, strict=True):
            kept = tf.identity(weight)
            weight.assign(other)
            other.assign(kept)
        self._is_in_model = not self._is_in_model
