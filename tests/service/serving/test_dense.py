"""Numbers are read in bulk, with the values that Python's own parser reads."""

import json

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
