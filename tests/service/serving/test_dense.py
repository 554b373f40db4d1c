"""Numbers are read in bulk, with the values that Python's own parser reads."""

import json
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("simdjson", reason="pip install --group serve")

from service.serving import dense


@pytest.mark.parametrize(
    "request_body",
    [
        {"instances": [{"x": [[1], [2]], "z": [5]}, {"x": [[3], [4]], "z": [6]}]},
        {"inputs": {"z": [[5], [6]], "x": [[[1], [2]], [[3], [4]]]}},
    ],
)
def test_numbers_by_name_are_read_in_bulk(request_body: dict[str, object]) -> None:
    body = json.dumps(request_body).encode()
    types = {"x": tf.uint8, "z": tf.int32}
    tensors = dense.read(dense.parse(body), body, types)
    assert tensors is not None  # else every number is read by itself
    np.testing.assert_array_equal(tensors["x"], [[[1], [2]], [[3], [4]]])
    np.testing.assert_array_equal(tensors["z"], [[5], [6]])


@pytest.mark.parametrize("dtype", [tf.int8, tf.float64])
@pytest.mark.parametrize("piece", [b"1,", b"-7,", b"[1],", b"[[1,2]],"])
def test_the_bound_is_above_what_is_allocated(piece: bytes, dtype: tf.DType) -> None:
    body = b'{"instances": [' + (piece * 400_000)[:-1] + b"]}"
    document = dense.parse(body)
    # What simdjson allocates is not traced: a copy of the body, 16 bytes for a number
    # or list, and 4 for a bracket, a comma and a number.
    lists, commas = body.count(b"["), body.count(b",")
    parsed = len(body) + 24 * (lists + commas)
    tracemalloc.start()
    tensors = dense.read(document, body, {"x": dtype})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert tensors is not None
    assert peak + parsed < dense.parsed_size(body)
