"""Calls that TensorFlow repeats for their gradient."""

from kerasnorm.backend.generic import is_called_by


def is_second_pass() -> bool:
    """Return whether `tf.recompute_grad` calls its function again."""
    return is_called_by(
        {("tensorflow.python.ops.custom_gradient", "inner_recompute_grad")}
    )
