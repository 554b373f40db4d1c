"""What every replica does with its part of a batch.

The functions run in a replica's context. A part's loss is divided by the size of the
whole batch, and the optimizer adds up the parts' gradients, so the step is that of the
whole batch.
"""

import keras
import tensorflow as tf

from training.loss import accuracy


def train_step(model: keras.Model, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Train with a batch and return `sums` of what the model said before.

    Args:
        model: A compiled model, its optimizer built.
        images: The whole batch.
        labels: Its classes, or rows of probabilities.
    """
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


def evaluation_step(
    model: keras.Model, images: tf.Tensor, labels: tf.Tensor
) -> tf.Tensor:
    """Return the sums of a batch as `train_step` does, but do not train."""
    images, labels, weight = _own_part(images, labels)
    logits = model(images, training=False)
    return _sums(labels, logits, model.loss.call(labels, logits), weight)


def sum_over_replicas(
    value: tf.Tensor,
    options: tf.distribute.experimental.CommunicationOptions | None = None,
) -> tf.Tensor:
    """Return the sum of the values that the replicas have."""
    replica = tf.distribute.get_replica_context()
    return replica.all_reduce(tf.distribute.ReduceOp.SUM, value, options)


def _own_part(
    images: tf.Tensor, labels: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return this replica's samples and the weight of each.

    The parts' sizes differ by one at most. No part is empty, because TensorFlow on a
    CPU gives the convolution of an empty batch a wrong shape. If there are fewer
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
    """Return the right answers, the losses and the samples of all replicas."""
    right = accuracy(labels, logits)
    parts = [right, losses, tf.ones_like(losses)]
    own = weight * tf.stack([tf.reduce_sum(part) for part in parts])
    return sum_over_replicas(own)
