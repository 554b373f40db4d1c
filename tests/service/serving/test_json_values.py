"""The memory that JSON needs, measured, against what is counted before it is read."""

import contextlib
import time
import tracemalloc

import pytest
import tensorflow as tf

pytest.importorskip("simdjson", reason="pip install --group serve")
pytest.importorskip("tensorflow_serving", reason="pip install --group serve")

from service.serving import json_values
from service.serving.predict_request import PredictRequest
from service.serving.room import Room
from tests.service.serving.fuzz_memory import GROWING

LENGTH = 150_000
BODIES = {
    **{piece.decode(): piece * (LENGTH // len(piece)) for piece in GROWING},
    "names": b"{%s}," % b",".join(b'"%x":1' % i for i in range(LENGTH // 10)),
    "a string": b'"%s",' % (b"a" * LENGTH),
    "characters of four bytes": b'"%s",' % ("\U0001f600".encode() * (LENGTH // 4)),
    "base64": b'{"b64":"%s"},' % (b"YWFh" * (LENGTH // 4)),
    "a string that does not end": b'"%s' % (b"a\\n" * (LENGTH // 3)),
    "text before a mistake": b'"%s" 1,' % (b"a" * LENGTH),
    "depth": b"[" * (LENGTH // 2) + b"]" * (LENGTH // 2) + b",",
}


@pytest.mark.parametrize("dtype", [tf.float32, tf.string])
@pytest.mark.parametrize("name", BODIES)
def test_the_bound_is_above_what_is_allocated(
    name: str, dtype: tf.DType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_values, "_SMALL", 0)  # so that what is in it is counted
    body = (
        b'{"instances": [' + BODIES[name][:-1] + b'], "more": NaN'
    )  # which simdjson leaves to Python
    for end in (b"}", b""):
        tracemalloc.start()
        with (
            Room(2**40).hold(time.monotonic() + 60) as hold,
            contextlib.suppress(tf.errors.InvalidArgumentError),
        ):
            PredictRequest(body + end, hold).tensors({"x": dtype})
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < json_values.parsed_size(body) + 2**16
