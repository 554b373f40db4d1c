"""Tensors of gRPC, compared with how TensorFlow itself reads them."""

import random
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

pytest.importorskip("simdjson", reason="pip install --group serve")

from service.serving.tensors import SentTensor, nbytes, tensor_proto
from tests.service.serving.served import ECHOED

FIELDS = {
    "float_val": [0.1, -3e38, float("nan")],
    "double_val": [0.1, 1e300],
    "half_val": [0, 15360, 65535, 70000, -1],
    "int_val": [0, -1, 127, 300, 2**31 - 1],
    "int64_val": [0, -(2**63)],
    "uint32_val": [2**32 - 1],
    "uint64_val": [2**64 - 1],
    "bool_val": [True, False],
    "string_val": [b"", b"\xff\x00", b"x" * 50],
    "scomplex_val": [1.0, 2.0, 3.0],
    "dcomplex_val": [1.0, 2.0, 3.0],
}
TYPES = [*ECHOED, "bfloat16", "complex64", "complex128"]


def message(draw: random.Random) -> Any:
    """Return a tensor that is right, or nearly."""
    dtype = tf.as_dtype(draw.choice(TYPES))
    proto = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum)
    for _ in range(draw.randint(0, 3)):
        proto.tensor_shape.dim.add().size = draw.choice([0, 1, 2, 3, 3, 5, -1])
    one = [b""] if dtype == tf.string else [1]
    usual = tensor_proto(np.array(one, dtype.as_numpy_dtype)).ListFields()[-1][0].name
    for field in {usual, draw.choice(list(FIELDS))}:
        count = draw.choice([0, 1, 2, 5, 30])
        getattr(proto, field).extend(draw.choices(FIELDS[field], k=count))
    if draw.random() < 0.2 and dtype != tf.string:
        proto.tensor_content = bytes(draw.choice([0, 1, 2, 8, 12, 48]))
    if draw.random() < 0.05:
        proto.tensor_shape.unknown_rank = True
        del proto.tensor_shape.dim[:]
    return proto


def test_random_tensors_are_those_that_tensorflow_reads() -> None:
    draw = random.Random(0)
    refused = 0
    for _ in range(3000):
        proto = message(draw)
        dtype = tf.as_dtype(proto.dtype)
        try:
            expected = tf.io.parse_tensor(proto.SerializeToString(), dtype).numpy()
        except tf.errors.InvalidArgumentError:
            refused += 1
            with pytest.raises(tf.errors.InvalidArgumentError):
                SentTensor(proto).array()
            continue
        tensor = SentTensor(proto)
        array = tensor.array()
        if dtype == tf.string:
            assert tensor.nbytes == nbytes(array)
            expected = np.array(expected, object)  # alone it is `bytes`
        else:
            assert tensor.nbytes == array.nbytes
            assert array.dtype == dtype.as_numpy_dtype
            array, expected = (np.atleast_1d(a).view("u1") for a in (array, expected))
        np.testing.assert_array_equal(array, expected)
    assert 200 < refused < 2500


@pytest.mark.parametrize("dtype", [name for name in TYPES if name != "string"])
def test_the_size_is_known_before_the_tensor_is_made(dtype: str) -> None:
    """One value and a shape stand for a tensor of terabytes."""
    proto = tensor_proto(np.ones((1,), tf.as_dtype(dtype).as_numpy_dtype))
    proto.tensor_shape.dim[0].size = 10**12
    assert SentTensor(proto).nbytes == 10**12 * tf.as_dtype(dtype).size


def test_a_string_counts_as_often_as_it_stands() -> None:
    proto = tf.make_tensor_proto([b"x" * 1000])
    proto.tensor_shape.dim[0].size = 10**9
    assert SentTensor(proto).nbytes == 10**9 * (1000 + 24)


@pytest.mark.parametrize(
    ("sizes", "complaint"),
    [
        ([-1], "negative"),
        ([2, -1, 0], "negative"),
        ([2**32, 2**31], "too large"),
        ([2**63 - 1, 2**63 - 1, 0], "too large"),
        ([1] * 33, "at most 32 dimensions"),
    ],
)
def test_shapes_that_no_tensor_has(sizes: list[int], complaint: str) -> None:
    proto = tensor_pb2.TensorProto(dtype=tf.float32.as_datatype_enum)
    for size in sizes:
        proto.tensor_shape.dim.add().size = size
    with pytest.raises(tf.errors.InvalidArgumentError, match=complaint):
        SentTensor(proto)


@pytest.mark.parametrize("dtype", ["resource", "variant", "qint8", "int4"])
def test_types_that_are_not_sent(dtype: str) -> None:
    number = tf.as_dtype(dtype).as_datatype_enum
    for proto in (
        tensor_pb2.TensorProto(dtype=number),
        tensor_pb2.TensorProto(dtype=number + 100),
        tensor_pb2.TensorProto(dtype=99),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match="type"):
            SentTensor(proto)
