"""Replicas of `tf.distribute` in processes of their own, and what they do there.

The replicas are logical CPUs of one process under MirroredStrategy, or processes under
MultiWorkerMirroredStrategy. TensorFlow must be told of either before it starts.
"""

import functools
import json
import multiprocessing
import os
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

import kerasnorm  # noqa: F401  # registers the layers that configs name

RATE = 0.125
"""The learning rate of `train`: a float32 without rounding."""

Parts = list[NDArray[Any]]
"""One array for each replica."""

Step = list[Parts]
"""x, dL/dy and perhaps a mask."""


def start_devices(number: int) -> None:
    """Split the CPU; in a process of its own."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * number
    )


def start_worker(addresses: Sequence[str], index: int) -> None:
    """Become a worker of several; in a process of its own."""
    os.environ["TF_CONFIG"] = json.dumps(
        {
            "cluster": {"worker": addresses},
            "task": {"type": "worker", "index": index},
        }
    )


@functools.cache
def strategy_of(number: int) -> Any:
    """Return the strategy of this process."""
    if "TF_CONFIG" not in os.environ:
        return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(number)])
    return tf.distribute.MultiWorkerMirroredStrategy(
        communication_options=tf.distribute.experimental.CommunicationOptions(
            timeout_seconds=60
        )
    )


def by_replica(strategy: Any, *results: Any) -> list[tuple[NDArray[Any], ...]]:
    """Return the results of each replica of this process as arrays."""
    rows = zip(*map(strategy.experimental_local_results, results), strict=True)
    return [tuple(np.array(result) for result in row) for row in rows]


def weights_by_replica(strategy: Any, layer: Any) -> list[dict[str, NDArray[Any]]]:
    names = [w.name for w in layer.weights]
    rows = by_replica(strategy, *(w.value for w in layer.weights))
    return [dict(zip(names, row, strict=True)) for row in rows]


def train(
    strategy: Any, config: dict[str, Any], steps: list[Step], compiled: bool = False
) -> list[tuple[Any, ...]]:
    """Train a layer by SGD.

    Returns:
        For each replica: y, dL/dx and the layer's weights after the last step.
    """
    with strategy.scope():
        layer = keras.saving.deserialize_keras_object(config)
        layer.build((None, *steps[0][0][0].shape[1:]))
        optimizer = keras.optimizers.SGD(RATE)
        optimizer.build(layer.trainable_variables)

    def step(x: Any, dy: Any, mask: Any = None) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True, mask=mask)
        dx, *gradients = tape.gradient(y, [x, *layer.trainable_variables], dy)
        # The optimizer sums them over the replicas.
        optimizer.apply_gradients(
            zip(gradients, layer.trainable_variables, strict=True)
        )
        return y, dx

    def run(*parts: Any) -> Any:
        return strategy.run(step, parts)

    call = tf.function(run, autograph=False) if compiled else run
    for parts in steps:
        arguments = [
            strategy.experimental_distribute_values_from_function(
                lambda context, own=own: tf.constant(
                    own[context.replica_id_in_sync_group]
                )
            )
            for own in parts
        ]
        y, dx = call(*arguments)
    return [
        (*tensors, weights)
        for tensors, weights in zip(
            by_replica(strategy, y, dx),
            weights_by_replica(strategy, layer),
            strict=True,
        )
    ]


def train_on_replicas(
    number: int, config: dict[str, Any], steps: list[Step], compiled: bool = False
) -> list[tuple[Any, ...]]:
    return train(strategy_of(number), config, steps, compiled)


def draw_on_replicas(
    number: int, config: dict[str, Any], shape: tuple[int, ...]
) -> list[tuple[NDArray[Any], ...]]:
    """Return two draws of a new layer, and its random state, on each replica."""
    strategy = strategy_of(number)
    with strategy.scope():
        layer = keras.saving.deserialize_keras_object(config)
        layer.build(shape)

    def draw() -> Any:
        return layer(tf.ones(shape), training=True)

    run = tf.function(lambda: strategy.run(draw), autograph=False)
    return by_replica(strategy, run(), run(), layer.seed_generator.state.value)


def fit_on_replicas(
    number: int,
    config: dict[str, Any],
    x: NDArray[Any],
    y: NDArray[Any],
    batch_size: int,
    path: str,
) -> tuple[list[float], list[tuple[NDArray[Any], ...]]]:
    """Fit and save a model; return the losses, and the weights of each replica."""
    strategy = strategy_of(number)
    with strategy.scope():
        model = keras.saving.deserialize_keras_object(config)
        model.compile(keras.optimizers.SGD(0.1), "mse")
    history = model.fit(x, y, batch_size, epochs=3, shuffle=False, verbose=0)
    model.save(path)
    return history.history["loss"], by_replica(
        strategy, *(w.value for w in model.weights)
    )


class Replicas:
    """Replicas that wait for work in other processes.

    An initializer is a function and its arguments; there is one for each process.
    """

    def __init__(self, number: int, initializers: Sequence[tuple[Any, ...]]) -> None:
        self.number = number
        # One process imports TensorFlow, of which the others are forks.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self._processes = [
            ProcessPoolExecutor(1, context, functools.partial(function, *arguments))
            for function, *arguments in initializers
        ]

    def call(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Call `function` in every process; return the results of all replicas."""
        calls = [
            process.submit(function, self.number, *arguments)
            for process in self._processes
        ]
        return [result for call in calls for result in call.result(timeout=300)]

    def call_one(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call `function` in the only process."""
        (process,) = self._processes
        return process.submit(function, self.number, *arguments).result(timeout=300)

    def close(self) -> None:
        for process in self._processes:
            process.shutdown()


def free_addresses(number: int) -> list[str]:
    """Return addresses of ports on this machine that nothing listens at."""
    sockets = [socket.create_server(("localhost", 0)) for _ in range(number)]
    addresses = [f"localhost:{s.getsockname()[1]}" for s in sockets]
    for each in sockets:
        each.close()
    return addresses
