"""Tensors of gRPC: their size, before they are made, and their values."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from service.serving.dense import MOST_DIMENSIONS
from service.serving.errors import invalid

_BYTES_OF_STRING = 24  # that TensorFlow needs beside its characters
# For each type, the field of its values, and their type in it.
_FIELDS: Mapping[tf.DType, tuple[str, Any]] = {
    tf.float32: ("float_val", np.float32),
    tf.float64: ("double_val", np.float64),
    tf.float16: ("half_val", np.int32),
    tf.bfloat16: ("half_val", np.int32),
    **dict.fromkeys(
        (tf.int8, tf.int16, tf.int32, tf.uint8, tf.uint16), ("int_val", np.int32)
    ),
    tf.int64: ("int64_val", np.int64),
    tf.uint32: ("uint32_val", np.uint32),
    tf.uint64: ("uint64_val", np.uint64),
    tf.bool: ("bool_val", np.bool_),
    tf.string: ("string_val", object),
    tf.complex64: ("scomplex_val", np.float32),
    tf.complex128: ("dcomplex_val", np.float64),
}
# What the fields hold of the types that they have no values of.
_BITS: Mapping[tf.DType, Any] = {
    tf.float16: np.uint16,
    tf.bfloat16: np.uint16,
    tf.complex64: np.float32,
    tf.complex128: np.float64,
}
_LARGEST_SIZE = 2**63 - 1
_AT_ONCE = 2**16


class SentTensor:
    """A tensor as a client has sent it, by the rules of TensorFlow's `FromProto`.

    The values are in `tensor_content`, or in the field of their type. There the last
    one stands for all that are missing, so few bytes may be a large tensor.

    Args:
        message: A `TensorProto`.

    Attributes:
        dtype: The type of the values.
        shape: The size of each axis.

    Raises:
        tf.errors.InvalidArgumentError: If it is no tensor of numbers or strings.
    """

    def __init__(self, message: Any) -> None:
        try:
            self.dtype = tf.as_dtype(message.dtype)
        except TypeError:
            raise invalid(f"unknown type {message.dtype}") from None
        if self.dtype not in _FIELDS:
            raise invalid(f"type {self.dtype.name} cannot be sent")
        self.shape = _shape(message.tensor_shape)
        self._field, self._wide = _FIELDS[self.dtype]
        self._message = message
        self._number = math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes of the tensor in TensorFlow."""
        if self.dtype != tf.string:
            return self._number * int(self.dtype.size)
        values = self._message.string_val
        lengths = sum(map(len, itertools.islice(values, self._number)))
        missing = max(0, self._number - len(values))
        if missing and values:
            lengths += missing * len(values[-1])
        return self._number * _BYTES_OF_STRING + lengths

    def array(self) -> np.ndarray:
        """Return the tensor.

        Raises:
            tf.errors.InvalidArgumentError: If it has too few or too many bytes.
        """
        content = self._message.tensor_content
        if not content or not self._number:
            return self._filled().reshape(self.shape)
        expected = self._number * int(self.dtype.size)
        if self.dtype == tf.string or len(content) != expected:
            raise invalid(
                f"`tensor_content` must have the {expected} bytes of shape "
                f"{list(self.shape)}. Received: {len(content)} bytes."
            )
        return np.frombuffer(content, self.dtype.as_numpy_dtype).reshape(self.shape)

    def _filled(self) -> np.ndarray:
        width = 2 if self.dtype in (tf.complex64, tf.complex128) else 1
        values = getattr(self._message, self._field)
        given = min(len(values) // width, self._number)
        if self.dtype == tf.string:
            array = np.full(self._number, b"", object)
            array[:given] = values[:given]
        else:
            flat = itertools.islice(values, given * width)
            array = np.zeros(self._number, self.dtype.as_numpy_dtype)
            array[:given] = self._narrow(np.fromiter(flat, self._wide, given * width))
        if given:
            array[given:] = array[given - 1]
        return array

    def _narrow(self, values: np.ndarray) -> np.ndarray:
        dtype = self.dtype.as_numpy_dtype
        bits = _BITS.get(self.dtype)
        if bits is None:
            return values.astype(dtype, copy=False)
        return values.astype(bits, copy=False).view(dtype)


def nbytes(array: np.ndarray) -> int:
    """Return the bytes of an array in TensorFlow."""
    if array.dtype != object:
        return array.nbytes
    return array.size * _BYTES_OF_STRING + sum(map(len, array.flat))


def tensor_proto(value: np.ndarray) -> Any:
    """Return a tensor with its values in the field of their type, such as `float_val`.

    TensorFlow Serving does so, and its example clients read that field.
    `tf.make_tensor_proto` leaves the field empty if there is more than one value.
    """
    array = np.asarray(value)
    dtype = tf.as_dtype(array.dtype)
    if dtype not in _FIELDS:
        return tf.make_tensor_proto(array)
    message = tensor_pb2.TensorProto(
        dtype=dtype.as_datatype_enum,
        tensor_shape=tf.TensorShape(array.shape).as_proto(),
    )
    flat = array.ravel()
    if dtype in _BITS:
        flat = flat.view(_BITS[dtype])
    field, _ = _FIELDS[dtype]
    values = getattr(message, field)
    for start in range(0, flat.size, _AT_ONCE):
        values.extend(flat[start : start + _AT_ONCE].tolist())
    return message


def _shape(message: Any) -> tuple[int, ...]:
    """Return the shape of a `TensorShapeProto`.

    Raises:
        tf.errors.InvalidArgumentError: If no tensor can have it.
    """
    if len(message.dim) > MOST_DIMENSIONS:
        raise invalid(
            f"A tensor has at most {MOST_DIMENSIONS} dimensions. "
            f"Received: {len(message.dim)}."
        )
    shape = tuple(dim.size for dim in message.dim)
    if min(shape, default=0) < 0:
        raise invalid(f"its shape {list(shape)} has a negative size")
    widest = 16  # bytes of a number
    if math.prod(max(1, size) for size in shape) > _LARGEST_SIZE // widest:
        raise invalid(f"its shape {list(shape)} is too large")
    return shape
