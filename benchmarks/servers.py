"""The servers that `python -m benchmarks.serving` compares, and their model."""

import importlib.util
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import models

REPOSITORY = Path(__file__).parent.parent

_MODEL = """
import os, sys
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import tensorflow as tf
directory, port = sys.argv[1], int(sys.argv[2])
"""
FASTAPI = f"""{_MODEL}
import uvicorn
from fastapi import FastAPI

predict = tf.saved_model.load(directory).signatures["serving_default"]
app = FastAPI()

@app.post("/v1/models/m:predict")
def answer(body: dict) -> dict:
    outputs = predict(images=tf.constant(body["instances"], tf.uint8))
    outputs = {{name: value.numpy().tolist() for name, value in outputs.items()}}
    rows = zip(*outputs.values())
    return {{"predictions": [dict(zip(outputs, row)) for row in rows]}}

uvicorn.run(app, port=port, log_level="warning", access_log=False)
"""
RAY = f"""{_MODEL}
import time
from ray import serve
from starlette.requests import Request

@serve.deployment(max_ongoing_requests=100)
class Model:
    def __init__(self):
        model = tf.saved_model.load(directory)
        self.predict = model.signatures["serving_default"]

    async def __call__(self, request: Request):
        body = await request.json()
        outputs = self.predict(images=tf.constant(body["instances"], tf.uint8))
        outputs = {{name: value.numpy().tolist() for name, value in outputs.items()}}
        rows = zip(*outputs.values())
        return {{"predictions": [dict(zip(outputs, row)) for row in rows]}}

serve.start(http_options={{"port": port}})
serve.run(Model.bind())
while True:
    time.sleep(1)
"""


def export(network: str, directory: Path) -> None:
    """Write the SavedModel of an untrained network, with the signature of train.py."""
    model = models.build(network, (28, 28, 1), 10)
    archive = keras.export.ExportArchive()
    archive.track(model)

    def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = model(images, training=False)
        return {
            "logits": logits,
            "probabilities": tf.nn.softmax(logits),
            "classes": tf.argmax(logits, axis=-1),
        }

    images = tf.TensorSpec((None, 28, 28, 1), tf.uint8, name="images")
    archive.add_endpoint("serve", serve, input_signature=[images])
    archive.write_out(str(directory), verbose=False)


def receive(connection: socket.socket) -> bytes:
    """Return the body of an answer; one that came in chunks is left so.

    Raises:
        ValueError: If its status is not 200.
    """
    answer = connection.recv(2**20)
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(2**20)
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise ValueError(f"The server answered: {answer[:500]!r}.")
    if b"transfer-encoding: chunked" in head.lower():
        while not body.endswith(b"\r\n0\r\n\r\n"):
            body += connection.recv(2**20)
        return body
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(2**20)
    return body


def free_port() -> int:
    """Return a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


class Server:
    """A server in processes of its own."""

    def __init__(self, command: list[str], port: int) -> None:
        self.port = port
        self._process = subprocess.Popen(
            command, cwd=REPOSITORY, stdout=sys.stderr, start_new_session=True
        )

    def request(self, images: np.ndarray) -> bytes:
        """Return the bytes of a predict request."""
        body = json.dumps({"instances": images.tolist()}).encode()
        head = (
            f"POST /v1/models/m:predict HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def connect(self) -> socket.socket:
        """Open a connection that sends without delay."""
        connection = socket.create_connection(("127.0.0.1", self.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def wait(self, images: np.ndarray) -> None:
        """Wait until the server answers.

        Raises:
            SystemExit: If the server has ended instead.
        """
        body = self.request(images).partition(b"\r\n\r\n")[2]
        url = f"http://127.0.0.1:{self.port}/v1/models/m:predict"
        headers = {"Content-Type": "application/json"}
        while self._process.poll() is None:
            try:
                urllib.request.urlopen(urllib.request.Request(url, body, headers))
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.3)
        raise SystemExit("error: a server has ended; its output says why.")

    def stop(self) -> None:
        """End the server."""
        self._process.terminate()
        self._process.wait(60)


HERE = ("kerasnorm", "FastAPI")
RAY_SERVE = ("Ray Serve",) if importlib.util.find_spec("ray") else ()


@contextmanager
def servers(base: Path, names: Sequence[str]) -> Iterator[dict[str, Server]]:
    """Run servers of the model `m` under a directory, each ready to answer."""
    directory = str(base / "m" / "1")
    python = [sys.executable]
    commands = {
        "kerasnorm": lambda port: [
            *(*python, "-m", "service", "--serve-only"),
            *("--model-base-path", str(base), "--port", port, "--grpc-port", "0"),
        ],
        "FastAPI": lambda port: [*python, "-c", FASTAPI, directory, port],
        "Ray Serve": lambda port: [*python, "-c", RAY, directory, port],
    }
    running = {}
    try:
        for name in names:
            port = free_port()
            running[name] = Server(commands[name](str(port)), port)
        for server in running.values():
            server.wait(np.zeros((1, 28, 28, 1), np.uint8))
        yield running
    finally:
        for server in running.values():
            server.stop()
