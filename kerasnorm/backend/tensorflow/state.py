"""The random state of the dropout layers, read and advanced as one step."""

import functools

import keras
import tensorflow as tf

from kerasnorm._keras import in_stateless_scope
from kerasnorm.backend import generic
from kerasnorm.functional import Tensor

MUTEX = "kerasnorm_random_state"
"""One for all layers: it is held for a few microseconds."""


def next_seed(generator: keras.random.SeedGenerator) -> Tensor:
    """Return the random state of a layer, and advance it as one step.

    One function may run several times at once: in `tf.data.Dataset.map` with
    `num_parallel_calls`, or called by several threads. Between the reading and the
    writing of one run another one must not read, or both draw the same mask. Under XLA
    the variables that a function updates are locked while it runs.
    """
    state = generator.state.value
    if in_stateless_scope() or isinstance(state, tf.distribute.DistributedValues):
        return generic.next_seed(generator)
    if tf.executing_eagerly():
        return _advance_alone(state)
    # XLA, whose index is the last one, does not compile the other branches. It could
    # not: it has no mutex.
    device = tf.raw_ops.DeviceIndex(device_names=["CPU", "GPU"])
    alone = functools.partial(_advance_alone, state)
    seed: Tensor = tf.switch_case(
        device, [alone, alone, functools.partial(_advance, state)]
    )
    return seed


def _advance(state: tf.Variable) -> Tensor:
    seed = tf.identity(state.read_value())
    with tf.control_dependencies([seed]):
        state.assign_add(tf.constant([0, 1], state.dtype))
    return seed


def _advance_alone(state: tf.Variable) -> Tensor:
    # Of two calls of a layer in one graph the second waits for the first at this
    # reading. Later it would wait with the lock, and the first one for the lock.
    with tf.control_dependencies([state.read_value()]):
        lock = tf.raw_ops.MutexLock(mutex=tf.raw_ops.MutexV2(shared_name=MUTEX))
    with tf.control_dependencies([lock]):
        seed = tf.identity(state.read_value())
    with tf.control_dependencies([seed]):
        added = state.assign_add(tf.constant([0, 1], state.dtype))
    if not tf.executing_eagerly():
        # In a graph the lock is held for as long as an operation still takes it.
        with tf.control_dependencies([added]):
            tf.raw_ops.ConsumeMutexLock(mutex_lock=lock)
    return seed
