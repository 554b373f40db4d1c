"""What the functions for TensorFlow rely on inside of it."""

import keras
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("TensorFlow's backend alone", allow_module_level=True)

import tensorflow as tf

from kerasnorm.backend.tensorflow.fused import is_under_xla


def test_xla_alone_is_told_by_the_index_of_the_device():
    """`DeviceIndex` is the length of its list under XLA, and less elsewhere."""
    assert is_under_xla() is False
    for jit_compile in (False, True):
        told = tf.function(is_under_xla, jit_compile=jit_compile)()
        assert bool(told) is jit_compile, "TensorFlow changed DeviceIndex."
