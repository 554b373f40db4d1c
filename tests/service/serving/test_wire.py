"""The memory of parsed messages, compared with what protobuf really allocates."""

import json
import subprocess
import sys

import pytest
from tensorflow.core.framework import tensor_pb2

pytest.importorskip("simdjson", reason="pip install --group serve")
pytest.importorskip("tensorflow_serving", reason="pip install --group serve")

from tensorflow_serving.apis import predict_pb2

from service.serving.wire import parsed_size

MOST = 2**40
SIZE = 400_000
# In each message a few bytes, again and again, that become an object.
PIECES = {
    "dims": b"\x12\x02\x12\x00",
    "tensors of a variant": b"\x7a\x02\x1a\x00",
    "strings": b"\x42\x00",
    "resources": b"\x72\x00",
    "integers": b"\x38\x01",
    "packed integers": b"\x3a\x04\x01\x01\x01\x01",
    "packed floats": b"\x2a\x04\x00\x00\x80\x3f",
    "fields that are unknown": b"\xa2\x06\x00",
    "content": b"\x22\x7f" + b"x" * 127,
}

MEASURE = """
import json, resource, sys
from tensorflow.core.framework import tensor_pb2
piece = bytes.fromhex(sys.argv[1])
data = piece * (int(sys.argv[2]) // len(piece))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
message = tensor_pb2.TensorProto.FromString(data)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps((after - before) * 1024))
"""


@pytest.mark.slow  # each starts a process that imports TensorFlow
@pytest.mark.parametrize("name", PIECES)
def test_the_bound_is_above_what_protobuf_allocates(name: str) -> None:
    piece = PIECES[name]
    command = [sys.executable, "-c", MEASURE, piece.hex(), str(10 * SIZE)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    bound = parsed_size(
        piece * (10 * SIZE // len(piece)), tensor_pb2.TensorProto.DESCRIPTOR, MOST
    )
    assert json.loads(run.stdout) < bound


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("dims", 30, 100),
        ("tensors of a variant", 60, 200),
        ("strings", 20, 60),
        ("packed integers", 10, 60),
        ("content", 1, 6),
    ],
)
def test_what_a_byte_becomes(name: str, least: int, most: int) -> None:
    message = PIECES[name] * (SIZE // len(PIECES[name]))
    bound = parsed_size(message, tensor_pb2.TensorProto.DESCRIPTOR, MOST)
    assert least < bound / len(message) < most


def test_an_ordinary_tensor_is_not_many_times_its_message() -> None:
    request = predict_pb2.PredictRequest()
    request.inputs["x"].float_val.extend([0.5] * 1_000_000)
    request.inputs["y"].tensor_content = bytes(4_000_000)
    message = request.SerializeToString()
    assert parsed_size(message, request.DESCRIPTOR, MOST) < 5 * len(message)


@pytest.mark.parametrize(
    "damage",
    [b"\x80" * 100_000, b"\x2a\xff\xff\xff\xff\x7f" * 20_000, b"\xff" * 70_000],
)
def test_a_damaged_message_ends_the_counting(damage: bytes) -> None:
    assert parsed_size(damage, predict_pb2.PredictRequest.DESCRIPTOR, MOST) < MOST


def test_counting_ends_where_it_is_too_much() -> None:
    message = PIECES["dims"] * 10**5
    descriptor = tensor_pb2.TensorProto.DESCRIPTOR
    assert 1000 < parsed_size(message, descriptor, 1000) < 2000
