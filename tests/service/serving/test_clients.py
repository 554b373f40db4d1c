"""Clients of TensorFlow Serving's documentation ask our server."""

import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("simdjson", reason="the extra `serve` is not installed")

from tests.service.services import Service, wait_until
from tests.service.serving.served import (
    Client,
    save_half_plus_three,
    save_half_plus_two,
    serve,
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    base = tmp_path_factory.mktemp("models")
    save_half_plus_two(base / "half_plus_two" / "1")
    save_half_plus_three(base / "half_plus_three" / "00000123")
    with serve(base) as (client, _):
        yield client


# From the pages "RESTful API" and "TensorFlow Serving with Docker". The answers are the
# same but for white space.
LINES: list[tuple[str, Any]] = [
    (
        "curl http://localhost:8501/v1/models/half_plus_three",
        {
            "model_version_status": [
                {
                    "version": "123",
                    "state": "AVAILABLE",
                    "status": {"error_code": "OK", "error_message": ""},
                }
            ]
        },
    ),
    (
        """curl -d '{"instances": [1.0,2.0,5.0]}' """
        "-X POST http://localhost:8501/v1/models/half_plus_three:predict",
        {"predictions": [3.5, 4.0, 5.5]},
    ),
    (
        """curl -d '{"signature_name": "tensorflow/serving/regress", """
        """"examples": [{"x": 1.0}, {"x": 2.0}]}' \\\n  """
        "-X POST http://localhost:8501/v1/models/half_plus_three:regress",
        {"results": [3.5, 4.0]},
    ),
    (
        """curl -d '{"instances": [1.0,5.0]}' """
        "-X POST http://localhost:8501/v1/models/half:predict",
        {"error": "Servable not found for request: Latest(half)"},
    ),
    (
        """curl -d '{"instances": [1.0, 2.0, 5.0]}' \\\n    """
        "-X POST http://localhost:8501/v1/models/half_plus_two:predict",
        {"predictions": [2.5, 3.0, 4.5]},
    ),
]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize(("line", "expected"), LINES)
def test_the_lines_of_curl(client: Client, line: str, expected: Any) -> None:
    line = line.replace(":8501", f":{client.port}")
    process = subprocess.run(line, shell=True, capture_output=True, check=True)
    assert json.loads(process.stdout) == expected


def test_a_client_that_offers_http_2_keeps_its_body(client: Client) -> None:
    """Java's does, with every request that it sends without TLS."""
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c"}
    for body in (
        b'{"instances": [1.0]}',
        b'{"instances": [1.0], "a": "\\r\\nupgrade:h2c"}',
    ):
        path = "/v1/models/half_plus_two:predict"
        status, answer = client.send("POST", path, body, **offer)
        assert (status, json.loads(answer)) == (200, {"predictions": [2.5]})


def test_a_job_is_trained_and_asked_by_every_client(
    tmp_path: Path,
    pictures: Path,
    fashion_mnist: Callable[[str], tuple[np.ndarray, np.ndarray]],
) -> None:
    """gRPC is asked as by tensorflow_serving/example/resnet_client_grpc.py."""
    apis = pytest.importorskip("tensorflow_serving.apis", reason="no extra `grpc`")
    assert apis
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    service = Service(
        tmp_path, "--data-root", pictures.parent, "--grpc-port", port
    ).start()
    try:
        config = {"model": "mlp", "epochs": 1, "batch_size": 32, "name": "resnet"}
        job = service.submit(config | {"dataset": f"folder:{pictures}"})
        service.wait_for(job, "succeeded")
        rest = Client(service.port)
        wait_until(lambda: rest.status("resnet") == {1: "AVAILABLE"})
        images = fashion_mnist("test")[0][:50]

        channel = grpc.insecure_channel(f"localhost:{port}")
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "resnet"
        request.model_spec.signature_name = "serving_default"
        request.inputs["images"].CopyFrom(tf.make_tensor_proto(images))
        result = stub.Predict(request, 60.0).outputs["probabilities"].float_val
        channel.close()

        # Over REST: rows, rows of named inputs, and columns.
        rows = rest.predict("resnet", {"instances": images.tolist()})
        objects = {"instances": [{"images": image} for image in images.tolist()]}
        assert rest.predict("resnet", objects) == rows
        columns = rest.predict("resnet", {"inputs": images.tolist()})["outputs"]
        rest.connection.close()

        model = tf.saved_model.load(str(tmp_path / "models" / "resnet" / "1"))
        expected = model.signatures["serving_default"](images=tf.constant(images))
        assert columns.keys() == expected.keys()
        for name, values in columns.items():
            assert values == [row[name] for row in rows["predictions"]]
            np.testing.assert_allclose(values, expected[name].numpy(), atol=1e-5)
        np.testing.assert_array_equal(
            np.float32(result), np.float32(columns["probabilities"]).ravel()
        )
    finally:
        service.stop()
