"""The warm-up requests of a SavedModel."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("simdjson", reason="pip install --group serve")

from tests.service.serving.served import serve, until


def test_warm_up_requests_run_before_a_version_is_served(
    tmp_path: Path, scales: Path
) -> None:
    logs = pytest.importorskip(
        "tensorflow_serving.apis.prediction_log_pb2", reason="no extra `grpc`"
    )

    def warm_up(version: Path, **inputs: np.ndarray) -> None:
        log = logs.PredictionLog()
        request = log.predict_log.request
        request.model_spec.name = "m"
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        extra = version / "assets.extra"
        extra.mkdir()
        path = str(extra / "tf_serving_warmup_requests")
        with tf.io.TFRecordWriter(path) as writer:
            writer.write(log.SerializeToString())

    for number, value in ((1, np.float32([1.0])), (2, np.array([b"text"], object))):
        shutil.copytree(scales / "1", tmp_path / "m" / str(number))
        warm_up(tmp_path / "m" / str(number), x=value)
    with serve(tmp_path) as (client, _):
        # A request that fails says that the model is not as its maker thinks.
        until(lambda: client.status("m") == {2: "END", 1: "AVAILABLE"})
        _, answer = client.send("GET", "/v1/models/m/versions/2")
        assert b'"error_code":"INVALID_ARGUMENT"' in answer
