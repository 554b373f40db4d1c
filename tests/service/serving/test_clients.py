"""Clients of TensorFlow Serving's documentation ask our server."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import tensorflow as tf

pytest.importorskip("simdjson", reason="pip install --group serve")

from tests.conftest import REPOSITORY
from tests.service.services import Service, wait_until
from tests.service.serving.served import (
    Client,
    save_half_plus,
    serve,
)

with socket.create_server(("127.0.0.1", 0)) as _free:
    GRPC_PORT = _free.getsockname()[1]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    base = tmp_path_factory.mktemp("models")
    save_half_plus(base / "half_plus_two" / "1", 2)
    save_half_plus(base / "half_plus_three" / "00000123", 3)
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


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, few_pictures: Path, models: Path
) -> Iterator[Service]:
    """Start a service with a model that computes as long as it is told.

    It finds no Gradio, so that it starts sooner and has no page.
    """
    pytest.importorskip("tensorflow_serving", reason="no extra `grpc`")
    root = tmp_path_factory.mktemp("service")
    shutil.copytree(models / "troubles", root / "models" / "troubles")
    missing = 'raise ModuleNotFoundError("No module named gradio", name="gradio")'
    (root / "gradio.py").write_text(missing)
    options = ("--data-root", few_pictures.parent, "--grpc-port", GRPC_PORT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(root), prepend=os.pathsep)
        service = Service(root, *options).start()
    yield service
    if service.process.poll() is None:
        service.stop()


@pytest.fixture
def predict(service: Service) -> Iterator[Any]:
    """Give the gRPC call that predicts."""
    import grpc
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    with grpc.insecure_channel(f"localhost:{GRPC_PORT}") as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict


def grpc_request(model: str, signature: str, **inputs: np.ndarray) -> Any:
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def test_a_job_is_trained_and_asked_by_every_client(
    service: Service,
    predict: Any,
    few_pictures: Path,
    fashion_mnist: Callable[[str], tuple[np.ndarray, np.ndarray]],
) -> None:
    """gRPC is asked as by tensorflow_serving/example/resnet_client_grpc.py."""
    config = {"model": "mlp", "epochs": 1, "batch_size": 32, "name": "resnet"}
    config |= {"monte_carlo": 50, "norm": False, "dataset": f"folder:{few_pictures}"}
    job = service.submit(config)
    service.wait_for(job, "succeeded")
    rest = Client(service.port)
    wait_until(lambda: rest.status("resnet") == {1: "AVAILABLE"})
    images = fashion_mnist("test")[0][:50]

    request = grpc_request("resnet", "serving_default", images=images)
    result = predict(request, 60.0).outputs["probabilities"].float_val
    # Over REST: rows, rows of named inputs, and columns.
    rows = rest.predict("resnet", {"instances": images.tolist()})
    objects = {"instances": [{"images": image} for image in images.tolist()]}
    assert rest.predict("resnet", objects) == rows
    columns = rest.predict("resnet", {"inputs": images.tolist()})["outputs"]
    rest.connection.close()

    model = tf.saved_model.load(str(service.root / "models" / "resnet" / "1"))
    expected = model.signatures["serving_default"](images=tf.constant(images))
    assert columns.keys() == expected.keys()
    for name, values in columns.items():
        assert values == [row[name] for row in rows["predictions"]]
        np.testing.assert_allclose(values, expected[name].numpy(), atol=1e-5)
    np.testing.assert_array_equal(
        np.array(result, "float32"),
        np.array(columns["probabilities"], "float32").ravel(),
    )


def test_the_calls_of_the_signature_monte_carlo(service: Service) -> None:
    """Those of docs/serving.md agree; the default of `samples` is the N of the job."""
    page = (REPOSITORY / "docs" / "serving.md").read_text(encoding="utf-8")
    section = page.partition("## With uncertainty")[2].partition("\n## ")[0]
    model = service.root / "models" / "resnet" / "1"
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    answers = []
    for language, block in blocks:
        code = (
            block.replace("saved_models/cnn-fashion_mnist/1", str(model))
            .replace("cnn-fashion_mnist", "resnet")
            .replace("localhost:8500", f"localhost:{GRPC_PORT}")
            .replace("localhost:8501", f"localhost:{service.port}")
        )
        if language == "python":
            names: dict[str, Any] = {}
            exec(code, names)
            outputs = getattr(names["answer"], "outputs", names["answer"])
            mean = outputs["mean"]
            answers.append(
                mean.numpy() if hasattr(mean, "numpy") else tf.make_ndarray(mean)
            )
        else:
            lines = code.replace("$ ", "").replace("python3", sys.executable)
            process = subprocess.run(
                lines, shell=True, capture_output=True, check=True, cwd=service.root
            )
            answers.append(np.array(json.loads(process.stdout)["outputs"]["mean"]))
    rest, *others = answers
    assert len(others) == 2
    for other in others:
        np.testing.assert_allclose(other[0], rest[0], atol=1e-6)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(model))
        signature = loaded.signature_def["monte_carlo"]
        assert dict(signature.defaults).keys() == {"samples"}
        feeds = {
            signature.inputs["images"].name: np.zeros((2, 28, 28, 1), np.uint8),
            signature.inputs["seed"].name: 1,
        }
        mean = session.run(signature.outputs["mean"].name, feeds)
    np.testing.assert_allclose(mean[0], rest[0], atol=1e-6)


def test_without_gradio_there_is_no_page(service: Service) -> None:
    """The log, which the next test reads, says so."""
    assert requests.get(service.url, timeout=60).status_code == 404


def test_what_waits_is_answered_by_a_service_that_stops(
    service: Service, predict: Any
) -> None:
    count = grpc_request("troubles", "count", n=np.array([20_000], "int32"))
    tasks = [predict.future(count, timeout=60) for _ in range(12)]
    time.sleep(0.5)
    service.process.terminate()
    for task in tasks:
        assert tf.make_ndarray(task.result().outputs["y"]) == [20_000]
    _, log = service.process.communicate(timeout=60)
    assert service.process.returncode == 0
    assert "No page at /: pip install --group serve brings it." in log.splitlines()
