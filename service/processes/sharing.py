"""What several processes share: the cores, the GPUs and the ports."""

import os
import socket

import tensorflow as tf

_LEAST_INTER_OP = 2  # so that a request that takes long does not stop others


def share_the_machine(processes: int) -> None:
    """Let TensorFlow use a part of the cores, and no more of the GPUs than it needs.

    Args:
        processes: How many processes do so.
    """
    cores = len(os.sched_getaffinity(0)) // processes
    tf.config.threading.set_intra_op_parallelism_threads(max(1, cores))
    tf.config.threading.set_inter_op_parallelism_threads(max(_LEAST_INTER_OP, cores))
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)


def share_port(listener: socket.socket) -> int:
    """Let other processes of the same user listen on a port too; return its number.

    Until now nobody else could have it, so it is no other service's.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    port: int = listener.getsockname()[1]
    return port
