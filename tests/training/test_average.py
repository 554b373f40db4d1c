"""The average of the weights, against NumPy over the steps of a training."""

import keras
import numpy as np

import kerasnorm
from training.average import WeightAverage

DECAY = 0.3
X = np.random.default_rng(0).normal(1, 2, (24, 5)).astype("float32")
Y = X[:, :2] * 3


class Recorder(keras.callbacks.Callback):
    """The weights at the beginning of each epoch, after each step, at each end."""

    def __init__(self) -> None:
        super().__init__()
        self.begins: list[list[np.ndarray]] = []
        self.steps: list[list[np.ndarray]] = []
        self.ends: list[list[np.ndarray]] = []

    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
        if batch == 0:
            self.begins.append(self.model.get_weights())

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self.steps.append(self.model.get_weights())

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        self.ends.append(self.model.get_weights())


def test_what_is_evaluated_is_the_average_and_training_goes_on_with_the_weights() -> (
    None
):
    model = keras.Sequential(
        [keras.Input((5,)), kerasnorm.KBatchNorm(), keras.layers.Dense(2)]
    )
    model.compile(keras.optimizers.SGD(0.05), "mse")
    averages = [model.get_weights()]
    callbacks = [WeightAverage(model, DECAY), recorder := Recorder()]
    for first in (0, 2):  # the second time as after a head that was trained alone
        model.fit(
            *(X, Y),
            batch_size=8,
            validation_data=(X, Y),
            initial_epoch=first,
            epochs=first + 2,
            shuffle=False,
            callbacks=callbacks,
            verbose=0,
        )
    for number, weights in enumerate(recorder.steps, 1):
        kept = min(DECAY, (1 + number) / (10 + number))
        pairs = zip(averages[-1], weights, strict=True)
        averages.append([kept * a + (1 - kept) * w for a, w in pairs])
    assert len(recorder.steps) == 12
    for epoch in range(4):
        last = 3 * (epoch + 1)
        for one, other in zip(recorder.ends[epoch], averages[last], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
        if epoch < 3:
            continued = zip(
                recorder.begins[epoch + 1], recorder.steps[last - 1], strict=True
            )
            for one, other in continued:
                np.testing.assert_array_equal(one, other)
    # In the batches of the training: a mean over others is rounded otherwise.
    evaluated = model.evaluate(X, Y, batch_size=8, verbose=0)
    assert evaluated == model.history.history["val_loss"][-1]
