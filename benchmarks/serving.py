"""Predictions over HTTP beside the bare call: `python -m benchmarks.serving`.

The service, a minimal FastAPI application and, where it is installed, Ray Serve answer
the same requests with the same model, in turn, each in processes of its own. All, the
client that asks too, share the machine's cores.
"""

import argparse
import importlib.util
import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import models
from benchmarks.quiet import during
from benchmarks.timing import environment

CONNECTIONS = 32
LARGE = 256
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
    """The SavedModel of an untrained network, with the signature of train.py's."""
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


class Server:
    """A server in processes of its own, and the requests that it is sent."""

    def __init__(self, command: list[str], port: int) -> None:
        self.port = port
        self._process = subprocess.Popen(
            command, cwd=REPOSITORY, stdout=sys.stderr, start_new_session=True
        )

    def request(self, images: np.ndarray) -> bytes:
        """The bytes of a predict request."""
        body = json.dumps({"instances": images.tolist()}).encode()
        return (
            f"POST /v1/models/m:predict HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body

    def connect(self) -> socket.socket:
        """A connection that sends at once."""
        connection = socket.create_connection(("127.0.0.1", self.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def wait(self, images: np.ndarray) -> None:
        """Waits until it answers.

        Raises:
            SystemExit: If it has ended instead.
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
        raise SystemExit(f"error: the server ended: {self._process.args}")

    def stop(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.wait(60)


def receive(connection: socket.socket) -> bytes:
    """The body of an answer.

    Raises:
        ValueError: If it is not of status 200.
    """
    answer = connection.recv(2**20)
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(2**20)
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise ValueError(f"The server answered: {answer[:500]!r}.")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(2**20)
    return body


def latency(call: Callable[[], Any], seconds: float) -> float:
    """The median time of one call after the other."""
    times = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end or len(times) < 10:
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def ask(server: Server, images: np.ndarray, seconds: float) -> float:
    """The median latency on one connection."""
    request = server.request(images)
    with server.connect() as connection:

        def call() -> None:
            connection.sendall(request)
            receive(connection)

        latency(call, seconds / 5)
        return latency(call, seconds)


def throughput(server: Server, images: np.ndarray, seconds: float) -> float:
    """Answers a second on many connections, each with one request under way."""
    request = server.request(images)
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for _ in range(CONNECTIONS):
            connection = stack.enter_context(server.connect())
            selector.register(connection, selectors.EVENT_READ)
            connection.sendall(request)
        for duration in (seconds / 5, seconds):
            count, start = 0, time.perf_counter()
            while time.perf_counter() - start < duration:
                for key, _ in selector.select():
                    receive(key.fileobj)  # type: ignore[arg-type]
                    key.fileobj.sendall(request)  # type: ignore[union-attr]
                    count += 1
        return count / (time.perf_counter() - start)


def bare_throughput(call: Callable[[], Any], seconds: float) -> float:
    """Calls a second of as many threads as make the most of them."""
    rates = []
    for count in (1, 2, 4):
        end = time.perf_counter() + seconds / 3
        done = [0] * count

        def work(index: int, end: float = end, done: list[int] = done) -> None:
            while time.perf_counter() < end:
                call()
                done[index] += 1

        threads = [threading.Thread(target=work, args=(i,)) for i in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rates.append(sum(done) / (seconds / 3))
    return max(rates)


@contextmanager
def servers(base: Path) -> Iterator[dict[str, Server]]:
    """All servers of the model `m` under a directory, each answering."""
    directory = str(base / "m" / "1")
    python = [sys.executable]
    commands = {
        "kerasnorm": lambda port: [
            *(*python, "-m", "service", "--serve-only"),
            *("--model-base-path", str(base), "--port", port, "--grpc-port", "0"),
        ],
        "FastAPI": lambda port: [*python, "-c", FASTAPI, directory, port],
    }
    if importlib.util.find_spec("ray"):
        commands["Ray Serve"] = lambda port: [*python, "-c", RAY, directory, port]
    running = {}
    try:
        for name, command in commands.items():
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            running[name] = Server(command(str(port)), port)
        for server in running.values():
            server.wait(np.zeros((1, 28, 28, 1), np.uint8))
        yield running
    finally:
        for server in running.values():
            server.stop()


def measure(network: str, seconds: float, rounds: int) -> dict[str, Any]:
    """All figures of one network: medians over rounds in which all take turns."""
    draw = np.random.default_rng(0)
    one = draw.integers(0, 256, (1, 28, 28, 1), np.uint8)
    many = draw.integers(0, 256, (LARGE, 28, 28, 1), np.uint8)
    with tempfile.TemporaryDirectory() as base:
        export(network, Path(base, "m", "1"))
        predict = tf.saved_model.load(f"{base}/m/1").signatures["serving_default"]
        bare_one = lambda x=tf.constant(one): predict(images=x)  # noqa: E731
        bare_many = lambda x=tf.constant(many): predict(images=x)  # noqa: E731
        figures: dict[str, dict[str, list[float]]] = {}

        def note(name: str, figure: str, value: float) -> None:
            figures.setdefault(name, {}).setdefault(figure, []).append(value)

        with servers(Path(base)) as running:
            for _ in range(rounds):
                note("bare call", "latency", latency(bare_one, seconds))
                note("bare call", "large", latency(bare_many, seconds))
                note("bare call", "throughput", bare_throughput(bare_one, seconds))
                for name, server in running.items():
                    note(name, "latency", ask(server, one, seconds))
                    note(name, "large", ask(server, many, seconds))
                    note(name, "throughput", throughput(server, one, seconds))
    return {
        name: {figure: statistics.median(values) for figure, values in part.items()}
        for name, part in figures.items()
    }


def table(network: str, figures: dict[str, dict[str, float]]) -> str:
    """The figures of a network as Markdown."""
    bare = figures["bare call"]
    lines = [
        f"| {network} | 1 image, ms | / bare | {LARGE} images, ms | / bare "
        f"| 1 image, {CONNECTIONS} connections, 1/s | / bare |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, part in figures.items():
        cells = [
            f"{part['latency'] * 1e3:.2f}",
            f"{part['latency'] / bare['latency']:.2f}",
            f"{part['large'] * 1e3:.1f}",
            f"{part['large'] / bare['large']:.2f}",
            f"{part['throughput']:.0f}",
            f"{part['throughput'] / bare['throughput']:.2f}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measures, and prints tables and where they come from."""
    parser = argparse.ArgumentParser("python -m benchmarks.serving")
    parser.add_argument("--seconds", type=float, default=3, help="for each figure")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, metavar="FILE.json")
    arguments = parser.parse_args()
    results: dict[str, Any] = {"environment": environment()}
    for network in ("mlp", "cnn"):
        results[network], _ = during(
            lambda n=network: measure(n, arguments.seconds, arguments.rounds)
        )
        print(table(network, results[network]), end="\n\n")
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
