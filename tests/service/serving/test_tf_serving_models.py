"""TensorFlow Serving's own models, and models of their kind, as its clients ask them.

Over REST and gRPC, with and without batching.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("simdjson", reason="pip install --group serve")
pytest.importorskip("tensorflow_serving", reason="pip install --group serve")

import grpc
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from service.serving.batching import BatchingParameters
from service.serving.grpc_server import GrpcServer
from tests.conftest import REPOSITORY
from tests.service.serving.served import Client, save_half_plus, serve, until

THEIRS = REPOSITORY.parent / "shared" / "data" / "tf_serving"
NAMES = {
    "saved_model_half_plus_two_cpu": 2,
    "saved_model_half_plus_two_2_versions": 2,
    "saved_model_half_plus_two_tf2_cpu": 2,
    "saved_model_half_plus_three": 3,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the models: ours of their kind, and theirs if they are there."""
    base = tmp_path_factory.mktemp("models") / "base"
    save_half_plus(base / "ours_plus_two" / "1", 2)
    save_half_plus(base / "ours_plus_three" / "1", 3)
    if THEIRS.is_dir():
        for name in NAMES:
            shutil.copytree(THEIRS / name, base / name)
    return base


@pytest.fixture(scope="module", params=[False, True], ids=["alone", "batched"])
def server(base: Path, request: Any) -> Iterator[tuple[Client, Any]]:
    """Serve all models; give a client of REST and the call of gRPC."""
    batching = BatchingParameters() if request.param else None
    with serve(base, batching=batching) as (client, serving):
        grpc_server = GrpcServer(serving, "127.0.0.1:0")
        grpc_server.start()
        with grpc.insecure_channel(f"127.0.0.1:{grpc_server.port}") as channel:
            yield (
                client,
                prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict,
            )
        grpc_server.stop(5).wait()


def models(base: Path) -> dict[str, int]:
    ours = {"ours_plus_two": 2, "ours_plus_three": 3}
    return ours | (NAMES if (base / next(iter(NAMES))).is_dir() else {})


def test_every_model_is_available_and_the_service_ready(
    server: tuple[Client, Any], base: Path
) -> None:
    client, _ = server
    for name in models(base):
        assert "AVAILABLE" in client.status(name).values(), name
    assert client.send("GET", "/readyz") == (200, b"ok")


def test_the_examples_of_the_documentation(
    server: tuple[Client, Any], base: Path
) -> None:
    """`{"instances": [1.0, 2.0, 5.0]}`, though some signatures ask for columns."""
    client, predict = server
    for name, number in models(base).items():
        for values in ([1.0, 2.0, 5.0], [[1.0], [2.0], [5.0]], [[1.0, 2.0, 5.0]]):
            expected = (np.array(values) / 2 + number).tolist()
            rows = client.predict(name, {"instances": values})
            assert rows == {"predictions": expected}, name
            columns = client.predict(name, {"inputs": values})
            assert columns == {"outputs": expected}, name
            message = predict_pb2.PredictRequest()
            message.model_spec.name = name
            message.inputs["x"].CopyFrom(tf.make_tensor_proto(values, tf.float32))
            answer = tf.make_ndarray(predict(message).outputs["y"])
            np.testing.assert_array_equal(answer, np.float32(expected))
        assert client.predict(name, {"inputs": 3.0}) == {"outputs": 1.5 + number}


def test_examples_are_regressed(server: tuple[Client, Any], base: Path) -> None:
    client, _ = server
    for name, number in models(base).items():
        if "tf2" in name:  # its methods are all `predict`
            continue
        path = f"/v1/models/{name}/metadata"
        _, answer = client.send("GET", path)
        signatures = json.loads(answer)["metadata"]["signature_def"]["signature_def"]
        signature = next(
            key
            for key, value in signatures.items()
            if key in ("regress_x_to_y", "tensorflow/serving/regress")
        )
        body = {"signature_name": signature, "examples": [{"x": 1.0}, {"x": 4.0}]}
        status, answer = client.send(
            "POST", f"/v1/models/{name}:regress", json.dumps(body).encode()
        )
        assert status == 200, (name, answer)
        assert json.loads(answer) == {"results": [0.5 + number, 2.0 + number]}


def test_strings_for_a_signature_of_numbers_are_refused(
    server: tuple[Client, Any], base: Path
) -> None:
    """Some of their signatures regress what are no examples."""
    client, _ = server
    if "saved_model_half_plus_two_cpu" not in models(base):
        pytest.skip("needs TensorFlow Serving's models")
    body = {"signature_name": "regress_x2_to_y3", "examples": [{"x": 1.0}]}
    status, answer = client.send(
        *("POST", "/v1/models/saved_model_half_plus_two_cpu:regress"),
        json.dumps(body).encode(),
    )
    assert status == 400, answer
    assert "Traceback" not in answer.decode()


def save_uninitialized(directory: Path) -> None:
    """Save a model that lacks what it needs: nothing initializes its table."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.string, [None], "x")
        table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(["a"], [1.0]), -1.0
        )
        info = tf.compat.v1.saved_model.build_tensor_info
        builder = tf.compat.v1.saved_model.Builder(str(directory))
        signature = tf.compat.v1.saved_model.build_signature_def(
            {"x": info(x)}, {"y": info(table.lookup(x))}
        )
        builder.add_meta_graph_and_variables(
            session, [tf.saved_model.SERVING], {"serving_default": signature}
        )
        builder.save()


@pytest.mark.parametrize("batching", [None, BatchingParameters()])
def test_a_version_that_cannot_answer_is_not_available(
    tmp_path: Path, base: Path, batching: BatchingParameters | None
) -> None:
    save_uninitialized(tmp_path / "m" / "2")
    shutil.copytree(base / "ours_plus_two", tmp_path / "other")
    with serve(tmp_path, batching=batching) as (client, _):
        assert client.status("m") == {2: "END"}
        _, answer = client.send("GET", "/v1/models/m")
        assert "FAILED_PRECONDITION" in answer.decode()
        status, answer = client.send("GET", "/readyz")
        assert (status, answer) == (503, b"no version can be served of: m")
        # Another version answers; then a broken one changes nothing any more.
        shutil.copytree(base / "ours_plus_two" / "1", tmp_path / "m" / "1")
        until(lambda: client.status("m") == {2: "END", 1: "AVAILABLE"})
        until(lambda: client.send("GET", "/readyz") == (200, b"ok"))
        save_uninitialized(tmp_path / "late" / "1")
        until(lambda: client.status("late") == {1: "END"})
        assert client.send("GET", "/readyz") == (200, b"ok")
        with contextlib.suppress(OSError):
            shutil.rmtree(tmp_path / "m")
