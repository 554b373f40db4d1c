"""Replicas of `tf.distribute`: their statistics together, their masks apart."""

import tensorflow as tf

from kerasnorm import functional
from kerasnorm.functional import Moments, Tensor


def pool_replicas(batch: Moments) -> Moments:
    """Return the moments of the batches of all replicas as one batch.

    One all-reduce sums arrays in which each replica has a place of its own. So the
    moments of each arrive as they are, for `functional.pool_moments` to merge. A sum
    over replicas has a gradient, so that of every y reaches the x of every replica.
    """
    replica = _replica()
    if replica is None:
        return batch
    rank, number = replica.replica_id_in_sync_group, replica.num_replicas_in_sync
    own = tf.stack([tf.broadcast_to(batch.count, tf.shape(batch.mean)), *batch[1:]])
    places = [[rank, number - 1 - rank], *([[0, 0]] * own.shape.rank)]
    parts = replica.all_reduce(tf.distribute.ReduceOp.SUM, tf.pad(own[None], places))
    return functional.pool_moments(Moments(*tf.unstack(parts, axis=1)))


def replica_seed(seed: Tensor) -> Tensor:
    """Return a seed of this replica's own, made of the one that the replicas share."""
    replica = _replica()
    if replica is None:
        return seed
    seed = tf.cast(seed, tf.int32)
    rank = tf.cast(replica.replica_id_in_sync_group, tf.int32)
    (own,) = tf.unstack(functional.random_words(tf.zeros(1, tf.int32), [seed[0], rank]))
    return tf.stack([own, seed[1]])


def _replica() -> tf.distribute.ReplicaContext | None:
    """Return the replica that is traced or runs, if there are several."""
    replica = tf.distribute.get_replica_context()
    several = replica is not None and replica.num_replicas_in_sync > 1
    return replica if several else None
