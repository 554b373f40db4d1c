"""The warm-up requests of a SavedModel."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("simdjson", reason="pip install --group serve")
pytest.importorskip("tensorflow_serving", reason="pip install --group serve")

from tensorflow_serving.apis import prediction_log_pb2

from service.serving.saved_model import SavedModel
from tests.service.serving.served import serve, until


def warm_up(version: Path, signature: str = "", **inputs: np.ndarray) -> None:
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.name = "m"
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    extra = version / "assets.extra"
    extra.mkdir(exist_ok=True)
    path = str(extra / "tf_serving_warmup_requests")
    with tf.io.TFRecordWriter(path) as writer:
        writer.write(log.SerializeToString())


def test_warm_up_requests_run_before_a_version_is_served(
    tmp_path: Path, scales: Path
) -> None:
    for number, value in ((1, np.float32([1.0])), (2, np.array([b"text"], object))):
        shutil.copytree(scales / "1", tmp_path / "m" / str(number))
        warm_up(tmp_path / "m" / str(number), x=value)
    with serve(tmp_path) as (client, _):
        # A request that fails says that the model is not as its maker thinks.
        until(lambda: client.status("m") == {2: "END", 1: "AVAILABLE"})
        _, answer = client.send("GET", "/v1/models/m/versions/2")
        assert b'"error_code":"INVALID_ARGUMENT"' in answer


def test_what_a_warm_up_request_leaves_out(tmp_path: Path, models: Path) -> None:
    version = tmp_path / "1"
    shutil.copytree(models / "defaults" / "1", version)
    x = np.float32([1.0])
    warm_up(version, x=x)
    SavedModel(version).close()
    for signature, inputs, complaint in (
        ("", {"number": x[0]}, "Signature input alias: x"),
        ("", {"x": x, "z": x}, "Inputs contains invalid name"),
        ("other", {"x": x}, 'Serving signature key "other" not found'),
    ):
        warm_up(version, signature, **inputs)
        with pytest.raises(tf.errors.OpError, match=complaint):
            SavedModel(version)
