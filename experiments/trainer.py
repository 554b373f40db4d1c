"""Train on arrays in memory, many steps in one compiled call."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf
from scipy.special import logsumexp

from experiments.data import Split

Objective = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]

FORWARD_BATCH = 1000


@dataclass(frozen=True)
class Plan:
    """How one network is trained.

    Attributes:
        steps: The number of steps. The weights after the last one are the result.
        batch_size: Images in a step; all images if there are fewer.
        rate: The learning rate.
        seed: Gives the initial weights, the order of the data and dropout's masks.
        decay: Whether the rate falls linearly to 0. By default it is constant.
        every: The number of steps between two pauses, in which to look at the network.
    """

    steps: int
    batch_size: int
    rate: float
    seed: int
    decay: bool = False
    every: int = 500


def cross_entropy(
    outputs: tf.Tensor, images: tf.Tensor, labels: tf.Tensor
) -> tf.Tensor:
    """Return the mean over the batch, from logits."""
    return tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels, outputs)
    )


class Trainer:
    """Trains networks of one structure, one after the other.

    The step is compiled once for all of them.

    Args:
        build: Makes the network of a seed. It takes images in [0, 1].
        optimizer: The optimizer. The `Plan` sets its learning rate.
        objective: The loss of (outputs, images, labels).
        xla: Whether XLA compiles the steps; convolutions are faster without.
    """

    def __init__(
        self,
        build: Callable[[int], keras.Model],
        optimizer: keras.optimizers.Optimizer,
        objective: Objective = cross_entropy,
        xla: bool = True,
    ) -> None:
        self._build, self._optimizer, self._objective = build, optimizer, objective
        self.model = build(0)
        self.seed = 0  # the one that the model was started with
        optimizer.build(self.model.trainable_variables)
        self._unused = [v.numpy() for v in optimizer.variables]
        self._run = tf.function(self._steps, jit_compile=xla)
        self._forward: dict[str | None, Any] = {}

    def start(self, seed: int) -> None:
        """Give the network the weights and random states of a seed."""
        for variable, fresh in zip(
            self.model.variables, self._build(seed).variables, strict=True
        ):
            variable.assign(fresh)
        for variable, value in zip(
            self._optimizer.variables, self._unused, strict=True
        ):
            variable.assign(value)
        self.seed = seed

    def train(self, data: Split, plan: Plan) -> Iterator[int]:
        """Train from the start; pause every `plan.every` steps.

        Yields:
            The number of steps done.
        """
        if plan.steps % plan.every:
            raise ValueError(
                "`steps` must be a multiple of `every`. "
                f"Received: steps={plan.steps}, every={plan.every}."
            )
        self.start(plan.seed)
        images, labels = tf.constant(data.images), tf.constant(data.labels)
        order, rates = batch_order(len(data), plan), learning_rates(plan)
        for start in range(0, plan.steps, plan.every):
            part = slice(start, start + plan.every)
            self._run(
                images, labels, tf.constant(order[part]), tf.constant(rates[part])
            )
            yield start + plan.every

    def train_to_end(self, data: Split, plan: Plan) -> Self:
        """Train without a pause; return the trainer."""
        for _ in self.train(data, plan):
            pass
        return self

    def outputs(self, images: np.ndarray, layer: str | None = None) -> np.ndarray:
        """Return the outputs of the network, or the inputs of a layer, at inference.

        Args:
            images: Of dtype uint8.
            layer: The layer's name. Defaults to none: the network's outputs.
        """
        if layer not in self._forward:
            network = self.model
            if layer is not None:
                network = keras.Model(network.inputs, network.get_layer(layer).input)
            self._forward[layer] = tf.function(
                lambda x: network(_scaled(x), training=False)
            )
        forward = self._forward[layer]
        parts = range(0, len(images), FORWARD_BATCH)
        return np.concatenate(
            [forward(tf.constant(images[i : i + FORWARD_BATCH])).numpy() for i in parts]
        )

    def _steps(
        self, images: tf.Tensor, labels: tf.Tensor, order: tf.Tensor, rates: tf.Tensor
    ) -> None:
        for step in tf.range(tf.shape(order)[0]):
            self._optimizer.learning_rate.assign(rates[step])
            x = _scaled(tf.gather(images, order[step]))
            y = tf.gather(labels, order[step])
            variables = self.model.trainable_variables
            with tf.GradientTape() as tape:
                loss = self._objective(self.model(x, training=True), x, y)
                loss += sum(self.model.losses)  # regularizers
            self._optimizer.apply(tape.gradient(loss, variables), variables)


def batch_order(samples: int, plan: Plan) -> np.ndarray:
    """Return the examples of every step. Every epoch has an order of its own."""
    batch_size = min(plan.batch_size, samples)
    needed = plan.steps * batch_size
    random = np.random.default_rng((plan.seed, 2))
    epochs = [random.permutation(samples) for _ in range(-(-needed // samples))]
    return np.concatenate(epochs)[:needed].reshape(-1, batch_size).astype("int32")


def learning_rates(plan: Plan) -> np.ndarray:
    """Return the learning rate of every step."""
    if not plan.decay:
        return np.full(plan.steps, plan.rate, "float32")
    left = 1 - np.arange(plan.steps) / plan.steps
    return (plan.rate * left).astype("float32")


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of right answers. One that is not a number is wrong."""
    finite = np.isfinite(logits).all(axis=-1)
    return float(np.mean(finite & (logits.argmax(axis=-1) == labels)))


def loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean cross-entropy in nats."""
    wide = logits.astype("float64")
    own = np.take_along_axis(wide, labels[:, None], axis=-1)[:, 0]
    return float(np.mean(logsumexp(wide, axis=-1) - own))


def accuracy_on(trainer: Trainer, data: Split) -> float:
    """Return the share of right answers of a network at inference."""
    return accuracy(trainer.outputs(data.images), data.labels)


def error_percent(trainer: Trainer, data: Split) -> float:
    """Return the share of wrong answers of a network at inference, in percent."""
    return 100 * (1 - accuracy_on(trainer, data))


def _scaled(images: tf.Tensor) -> tf.Tensor:
    return tf.cast(images, tf.float32) / 255
