"""SavedModels for the tests of serving, a server for them, and a client."""

import contextlib
import http.client
import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import uvicorn

from service.app import Settings, create_app
from service.http_protocol import HttpProtocol
from service.serving.config import ServingConfig
from service.serving.routes import Serving

v1 = tf.compat.v1
AVAILABLE = {
    "model_version_status": [
        {
            "version": "1",
            "state": "AVAILABLE",
            "status": {"error_code": "OK", "error_message": ""},
        }
    ]
}
ECHOED = (
    *("float16", "float32", "float64", "bool", "string"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)


def _spec(shape: Any, dtype: str, name: str) -> tf.TensorSpec:
    return tf.TensorSpec(shape, dtype, name)


def save(directory: Path, **signatures: tuple[Any, list[tf.TensorSpec]]) -> None:
    """Save functions, with the specifications of their inputs, as signatures."""
    module = tf.Module()
    concrete = {}
    for name, (function, inputs) in signatures.items():
        traced = tf.function(function, input_signature=inputs)
        setattr(module, name, traced)
        concrete[name] = traced
    tf.saved_model.save(module, str(directory), signatures=concrete)


def save_scale(directory: Path, factor: float) -> None:
    """Save y = factor * x, with the factor in a variable of a checkpoint."""
    module = tf.Module()
    module.factor = tf.Variable(float(factor))

    def scale(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": module.factor * x}

    inputs = [_spec([None], "float32", "x")]
    module.scale = tf.function(scale, input_signature=inputs)
    tf.saved_model.save(module, str(directory), signatures=module.scale)


def save_half_plus_two(directory: Path) -> None:
    """Save the model of TensorFlow Serving's documentation: y = x / 2 + 2."""
    save(
        directory,
        serving_default=(
            lambda x: {"y": x * 0.5 + 2.0},
            [_spec([None], "float32", "x")],
        ),
    )


def save_half_plus(directory: Path, number: float) -> None:
    """Save y = x / 2 + number as TensorFlow Serving's own models are.

    They are of TensorFlow 1: variables that must be restored, a column as input, and
    strings of `tf.train.Example` for the other methods.
    """
    with tf.Graph().as_default(), v1.Session() as session:
        half = v1.Variable(0.5, name="a", use_resource=False)
        added = v1.Variable(float(number), name="b", use_resource=False)
        serialized = v1.placeholder(tf.string, name="tf_example")
        features = v1.parse_example(
            serialized, {"x": v1.FixedLenFeature([1], tf.float32)}
        )
        x = tf.identity(features["x"], "x")  # which `predict` feeds
        y = tf.add(tf.multiply(half, x), added, name="y")
        session.run(v1.global_variables_initializer())
        info = v1.saved_model.build_tensor_info
        build = v1.saved_model.build_signature_def
        builder = v1.saved_model.Builder(str(directory))
        builder.add_meta_graph_and_variables(
            session,
            [tf.saved_model.SERVING],
            {
                "serving_default": build(
                    {"x": info(x)}, {"y": info(y)}, tf.saved_model.PREDICT_METHOD_NAME
                ),
                "tensorflow/serving/regress": build(
                    {"inputs": info(serialized)},
                    {"outputs": info(y)},
                    tf.saved_model.REGRESS_METHOD_NAME,
                ),
            },
        )
        builder.save()


def save_sizes(directory: Path) -> None:
    """Save a signature for each type that returns the number of values."""
    save(
        directory,
        serving_default=(
            lambda x: {"y": tf.size(x)},
            [_spec(None, "float32", "x")],
        ),
        **{
            dtype: (lambda x: {"y": tf.size(x)}, [_spec(None, dtype, "x")])
            for dtype in ECHOED
        },
    )


def save_echo(directory: Path) -> None:
    """Save a signature for each type that returns its input."""
    save(
        directory,
        serving_default=(
            lambda x: {"y": tf.identity(x)},
            [_spec(None, "float32", "x")],
        ),
        **{
            dtype: (lambda x: {"y": tf.identity(x)}, [_spec(None, dtype, "x")])
            for dtype in ECHOED
        },
    )


def save_pair(directory: Path) -> None:
    """Save signatures with two inputs and several outputs."""

    def several(a: tf.Tensor, b: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"sum": a[:, None] + b, "first": a}

    inputs = [_spec([None], "float32", "a"), _spec([None, 2], "int32", "b")]
    save(
        directory,
        serving_default=(
            lambda a, b: several(a, tf.cast(b, tf.float32)),
            inputs,
        ),
        uneven=(
            lambda a, b: {"a": a, "b": tf.concat([b, b], 0)},
            inputs,
        ),
        scalar=(
            lambda a, b: {"a": a, "mean": tf.reduce_mean(a)},
            inputs,
        ),
    )


def save_defaults(directory: Path) -> None:
    """Save y = number * x, where `number` is 10 if it is left out."""
    ten = tf.constant(10.0)

    def multiply(x: tf.Tensor, number: tf.Tensor = ten) -> dict[str, tf.Tensor]:
        return {"y": number * x}

    inputs = [_spec([None], "float32", "x"), _spec([], "float32", "number")]
    save(directory, serving_default=(multiply, inputs))


def save_text(directory: Path) -> None:
    """Save signatures that take strings and return strings and bytes."""

    def texts(s: tf.Tensor) -> dict[str, tf.Tensor]:
        return {
            "upper": tf.strings.upper(s),
            "raw_bytes": s,
            "length": tf.strings.length(s),
        }

    save(
        directory,
        serving_default=(texts, [_spec([None], "string", "s")]),
        lone_bytes=(lambda s: {"raw_bytes": s}, [_spec(None, "string", "s")]),
    )


def save_troubles(directory: Path) -> None:
    """Save signatures that fail, take long, never end, or cannot be printed."""

    def count(n: tf.Tensor) -> dict[str, tf.Tensor]:
        i = tf.constant(0)
        while i < n[0]:
            i += 1
        return {"y": tf.fill([1], i)}

    def check(x: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.control_dependencies([tf.debugging.assert_positive(x, "not positive")]):
            return {"y": tf.identity(x)}

    def divide(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": 1.0 / x}

    def wait(x: tf.Tensor) -> dict[str, tf.Tensor]:
        types = [tf.float32]
        queue = tf.raw_ops.FIFOQueueV2(component_types=types, shapes=[[]])
        (never,) = tf.raw_ops.QueueDequeueV2(handle=queue, component_types=types)
        return {"y": x + never}

    number = [_spec([None], "float32", "x")]
    save(
        directory,
        serving_default=(check, number),
        count=(count, [_spec([None], "int32", "n")]),
        divide=(divide, number),
        wait=(wait, number),
        imaginary=(lambda x: {"y": tf.complex(x, x)}, number),
        multiply=(
            lambda x: {"y": tf.matmul(x, tf.ones([3, 2]))},
            [_spec(None, "float32", "x")],
        ),
        no_inputs=(lambda: {"y": tf.constant([1.0])}, []),
    )


def save_examples(directory: Path) -> None:
    """Save a TensorFlow 1 model that classifies and regresses `tf.train.Example`s."""
    with tf.Graph().as_default(), v1.Session() as session:
        serialized = v1.placeholder(tf.string, [None], "examples")
        features = v1.parse_example(
            serialized,
            {
                "x": v1.FixedLenFeature([2], tf.float32),
                "who": v1.FixedLenFeature([], tf.string, "nobody"),
                "n": v1.FixedLenFeature([], tf.int64, 7),
            },
        )
        factor = v1.get_variable("factor", initializer=2.0)
        scores = features["x"] * factor
        classes = tf.stack([features["who"], tf.strings.as_string(features["n"])], 1)
        info = v1.saved_model.build_tensor_info
        build = v1.saved_model.build_signature_def
        inputs = {"inputs": info(serialized)}
        both = {"classes": info(classes), "scores": info(scores)}
        value = info(tf.reduce_sum(scores, 1))
        wide = info(scores)
        classify, regress = (
            tf.saved_model.CLASSIFY_METHOD_NAME,
            tf.saved_model.REGRESS_METHOD_NAME,
        )
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(directory))
        builder.add_meta_graph_and_variables(
            session,
            [tf.saved_model.SERVING],
            {
                "serving_default": build(inputs, both, classify),
                "scores_only": build(inputs, {"scores": both["scores"]}, classify),
                "classes_only": build(inputs, {"classes": both["classes"]}, classify),
                "regress": build(inputs, {"outputs": value}, regress),
                "regress_wide": build(inputs, {"outputs": wide}, regress),
            },
        )
        builder.save()


def save_all(base: Path) -> None:
    """Save all these models, each as version 1 under its name."""
    save_half_plus_two(base / "half" / "1")
    save_echo(base / "echo" / "1")
    save_defaults(base / "defaults" / "1")
    save_pair(base / "pair" / "1")
    save_text(base / "text" / "1")
    save_troubles(base / "troubles" / "1")
    save_examples(base / "examples" / "1")


class Client:
    """One connection to a server. It sends bytes as they are."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def send(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes]:
        """Return the status and body of the answer. The content type is curl's."""
        headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
        self.connection.request(method, path, body, headers)
        response = self.connection.getresponse()
        return response.status, response.read()

    def predict(self, model: str, body: Any) -> Any:
        """Return the JSON of the answer to a predict request that must succeed."""
        path = f"/v1/models/{model}:predict"
        status, answer = self.send("POST", path, json.dumps(body).encode())
        assert status == 200, answer
        return json.loads(answer)

    def status(self, model: str) -> dict[int, str]:
        """Return the states of a model's versions; none if the model is unknown."""
        status, answer = self.send("GET", f"/v1/models/{model}")
        if status == 404:
            return {}
        assert status == 200, answer
        return {
            int(version["version"]): version["state"]
            for version in json.loads(answer)["model_version_status"]
        }


def send_once(port: int, path: str, body: bytes) -> tuple[int, bytes]:
    """Post a body on a connection of its own."""
    client = Client(port)
    with contextlib.closing(client.connection):
        return client.send("POST", path, body)


@contextlib.contextmanager
def serve(base: Path, **options: Any) -> Iterator[tuple[Client, Serving]]:
    """Give a client and a server in a thread, with all models loaded."""
    options.setdefault("poll_interval", 0.1)
    serving = Serving(ServingConfig(base, **options))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(Settings(serving.config), serving),
            http=HttpProtocol,
            log_level="warning",
            access_log=False,
            ws="none",
            timeout_keep_alive=600,
            timeout_graceful_shutdown=300,
        )
    )
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    client = Client(listener.getsockname()[1])
    try:
        until(lambda: server.started)
        assert serving.servables.wait_until_settled(60)
        yield client, serving
    finally:
        client.connection.close()
        server.should_exit = True
        thread.join()


def until(condition: Any, seconds: float = 30) -> None:
    """Wait until a condition holds; fail if that takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not become so"
        time.sleep(0.02)


def half(x: float) -> float:
    """Return the answer of the model of `save_half_plus_two`."""
    return float(np.float32(x) * np.float32(0.5) + np.float32(2))


def publish(source: Path, target: Path) -> None:
    """Copy a version to its place as train.py does: under another name first."""
    hidden = target.with_name(f".{target.name}")
    shutil.copytree(source, hidden)
    hidden.rename(target)


def factor(client: Client, model: str = "m", version: str = "") -> float:
    """Return the factor by which a model of `save_scale` multiplies."""
    path = f"/v1/models/{model}{version}:predict"
    status, answer = client.send("POST", path, b'{"instances": [1]}')
    assert status == 200, answer
    return float(json.loads(answer)["predictions"][0])


def refused(client: Client, version: str = "") -> str:
    """Return the message of a request that must be refused."""
    path = f"/v1/models/m{version}:predict"
    status, answer = client.send("POST", path, b'{"instances": [1]}')
    assert 400 <= status < 500, answer
    return str(json.loads(answer)["error"])
