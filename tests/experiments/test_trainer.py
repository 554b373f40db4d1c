"""The trainer: what it computes, and that nothing of an earlier training stays."""

import dataclasses

import keras
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from experiments.nets import mlp
from experiments.trainer import (
    Plan,
    Trainer,
    accuracy,
    batch_order,
    learning_rates,
    loss,
)

RNG = np.random.default_rng(0)


def test_training_is_gradient_descent_with_momentum_and_decay(data):
    def regression(seed):
        return mlp(seed, widths=())

    trainer = Trainer(regression, keras.optimizers.SGD(momentum=0.9))
    plan = Plan(6, 20, 0.5, seed=3, decay=True, every=3)
    weights = regression(3).get_weights()
    assert list(trainer.train(data.train, plan)) == [3, 6]

    kernel, bias = (w.astype("float64") for w in weights)
    velocity = [0.0, 0.0]
    x = data.train.images.reshape(len(data.train), 784) / 255.0
    for step, batch in enumerate(batch_order(len(data.train), plan)):
        wrong = softmax(x[batch] @ kernel + bias, axis=1)
        wrong[np.arange(20), data.train.labels[batch]] -= 1
        gradients = (x[batch].T @ wrong / 20, wrong.mean(axis=0))
        rate = 0.5 * (1 - step / 6)
        velocity = [
            0.9 * v - rate * g for v, g in zip(velocity, gradients, strict=True)
        ]
        kernel, bias = kernel + velocity[0], bias + velocity[1]
    np.testing.assert_allclose(trainer.model.get_weights()[0], kernel, atol=2e-5)
    np.testing.assert_allclose(trainer.model.get_weights()[1], bias, atol=2e-5)
    expected = data.test.images.reshape(-1, 784) / 255.0 @ kernel + bias
    outputs = trainer.outputs(data.test.images)
    np.testing.assert_allclose(outputs, expected, atol=1e-3)


def test_a_seed_gives_the_same_network_whatever_was_trained_before(data):
    def network(seed):
        return mlp(seed, widths=(16,), rate=0.5, norm=True)

    trainer = Trainer(network, keras.optimizers.SGD(momentum=0.9))
    plan = Plan(20, 10, 0.1, seed=1, every=10)
    trainer.train_to_end(data.train, plan)
    first = [v.numpy() for v in trainer.model.variables]
    trainer.train_to_end(data.train, dataclasses.replace(plan, seed=2, rate=0.3))
    other = [v.numpy() for v in trainer.model.variables]
    assert any((a != b).any() for a, b in zip(first, other, strict=True))
    trainer.train_to_end(data.train, plan)
    for a, b in zip(first, trainer.model.variables, strict=True):
        np.testing.assert_array_equal(a, b.numpy())


def test_every_epoch_has_every_example_once():
    order = batch_order(10, Plan(6, 5, 0.1, seed=0))
    assert order.shape == (6, 5)
    epochs = order.reshape(3, 10)
    assert (np.sort(epochs, axis=1) == np.arange(10)).all()
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert batch_order(3, Plan(4, 5, 0.1, seed=0)).shape == (4, 3)


def test_learning_rates_fall_to_zero_or_stay():
    assert learning_rates(Plan(4, 1, 2.0, seed=0)).tolist() == [2, 2, 2, 2]
    falling = learning_rates(Plan(4, 1, 2.0, seed=0, decay=True))
    assert falling.tolist() == [2, 1.5, 1, 0.5]


def test_steps_that_do_not_fit_are_refused(data):
    trainer = Trainer(lambda seed: mlp(seed, widths=()), keras.optimizers.SGD())
    with pytest.raises(ValueError, match="steps=10, every=4"):
        trainer.train_to_end(data.train, Plan(10, 5, 0.1, seed=0, every=4))


def test_outputs_that_are_not_numbers_are_wrong_answers():
    logits = np.array([[0, 1], [np.nan, 0], [np.inf, 0], [2, 1]])
    assert accuracy(logits, np.array([1, 0, 0, 0])) == 0.5


def test_the_loss_is_the_mean_cross_entropy():
    logits, labels = RNG.normal(0, 50, (20, 10)), RNG.integers(0, 10, 20)
    expected = -log_softmax(logits, axis=1)[np.arange(20), labels].mean()
    assert loss(logits, labels) == pytest.approx(expected)
