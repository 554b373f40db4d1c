"""Bodies and messages that become large, against the documented bound of memory.

`python -m tests.service.serving.fuzz_memory --requests 100000` sends that many to a
server in a process of its own, over REST and gRPC at the same time, and compares the
peak of the server's memory with what it takes without requests and the documented
limits: of all bodies, of what they become, of what parsers of JSON and the heaps keep.
Answers are small here. Messages of gRPC that are still arriving are not counted, so the
check is stricter than what is documented.

Requests are random and hostile: tensors of few bytes and large shapes, messages of
objects without content, JSON of brackets or of numbers, bodies packed by gzip.
"""

import argparse
import base64
import collections
import concurrent.futures
import contextlib
import datetime
import gzip
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import predict_pb2

from benchmarks import pages
from service.serving import dense, heaps
from service.serving.config import ServingConfig
from service.serving.grpc_server import GrpcServer
from tests.service.serving import fuzz_predict
from tests.service.serving.served import ECHOED, Client, save_all, save_sizes, serve

PREDICT = "/tensorflow.serving.PredictionService/Predict"
CLIENTS = 6
UNEXPECTED = "unexpected"
STATUSES = {200, 400, 404, 413, 429, 501, 504}
CODES = {
    *("OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"),
    *("RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"),
}
FIELDS = [
    *("float_val", "double_val", "int_val", "string_val", "scomplex_val", "int64_val"),
    *("bool_val", "dcomplex_val", "half_val", "uint32_val", "uint64_val"),
]
# Bits of JSON that become much more than they are, alone or after each other.
GROWING = [
    *(b"1,", b"0.5,", b"[],", b"{},", b'"",', b'"a",', b'{"x":1},', b"[[1]],", b"[1],"),
    *(b"[", b"[[", b'{"":', b"true,", b"NaN,", b"1e5,", b"-7,", b"12345678901,"),
    *(b'{"x":[1]},', b'{"b64":"YQ=="},', '"\U0001f600",'.encode(), b'"\\u0000",'),
]

Message = tuple[str, bytes, dict[str, str]]
"""A path, or "" for gRPC; the bytes; the headers."""


def size(draw: random.Random, largest: int) -> int:
    """Return a number of bytes of any order of magnitude, mostly a small one."""
    return int(largest ** draw.uniform(0.2, 1.0 if draw.random() < 0.02 else 0.6))


def json_body(draw: random.Random, largest: int) -> Message:
    """Return a body that is long and becomes longer."""
    path = draw.choice(["sizes:predict"] * 3 + ["examples:classify", "text:predict"])
    key = "examples" if "classify" in path else draw.choice(["instances", "inputs"])
    head = {"signature_name": draw.choice(ECHOED)} if "sizes" in path else {}
    begin = json.dumps(head)[:-1].encode() + (b", " if head else b"")
    begin += json.dumps(key).encode() + b": "
    if key == "examples":
        begin += b'[{"x": '
    piece = draw.choice(GROWING)
    content = piece * (size(draw, largest) // len(piece) + 1)
    if draw.random() < 0.3:
        content = base64.b64encode(draw.randbytes(min(len(content), 2**20)))
        content = b'{"b64": "' + content * (size(draw, largest) // len(content) + 1)
        content += b'"},'
    if draw.random() < 0.2:
        content += draw.choice(GROWING) * 3
    if draw.random() < 0.2:  # many names
        names = (b'"%x": 1,' % i for i in range(size(draw, largest) // 10))
        content = b"{" + b"".join(names)[:-1] + b"},"
    end = b"]}]}" if key == "examples" else b"]}"
    body = begin + b"[" + content[:-1] + end
    if draw.random() < 0.1:
        body = fuzz_predict.damaged(draw, body)
    return packed(draw, f"/v1/models/{path}", body)


def packed(draw: random.Random, path: str, body: bytes) -> Message:
    """Return a body, packed by gzip sometimes, and then not always well."""
    if draw.random() < 0.7:
        return path, body, {}
    members = [gzip.compress(body, 1)]
    match draw.randint(0, 5):
        case 0:
            members *= draw.randint(2, 50)
        case 1:
            members = [gzip.compress(b"")] * draw.randint(1, 5000) + members
        case 2:
            members += [gzip.compress(b" " * 2**24, 9)] * draw.randint(1, 9)
        case 3:
            members = [fuzz_predict.damaged(draw, members[0])]
        case 4:
            members.append(bytes(draw.randint(1, 1000)))
    encoding = draw.choice(["gzip", "gzip", "deflate", "x-gzip"])
    return path, b"".join(members), {"Content-Encoding": encoding}


def shape(draw: random.Random) -> Any:
    """Return a shape: usual, huge, negative, overflowing, or of an unknown rank."""
    message = tf.TensorShape([]).as_proto()
    if draw.random() < 0.05:
        message.unknown_rank = True
    for _ in range(draw.choice([0, 1, 1, 1, 2, 2, 3, 40])):
        message.dim.add().size = draw.choice(
            [
                *(draw.randint(0, 9), draw.randint(0, 9), 2 ** draw.randint(0, 40)),
                *(10 ** draw.randint(0, 18), -1, 2**63 - 1, draw.randint(0, 10**7)),
            ]
        )
    return message


def tensor(draw: random.Random, dtype: int, largest: int) -> Any:
    """Return a tensor of a type with few or many values, in the right field or not."""
    message = tensor_pb2.TensorProto(dtype=dtype, tensor_shape=shape(draw))
    field = draw.choice(FIELDS)
    count = draw.choice([0, 1, 1, 2, size(draw, largest // 16)])
    value: Any = draw.choice([0, 1])
    if field == "string_val":
        value = draw.choice([b"", b"a", b"x" * size(draw, 10_000)])
    getattr(message, field).extend([value] * count)
    if draw.random() < 0.2:
        message.tensor_content = bytes(size(draw, largest))
    return message


def grpc_message(draw: random.Random, largest: int) -> Message:
    """Return a request of gRPC."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "sizes"
    dtype = draw.choice(ECHOED)
    request.model_spec.signature_name = dtype
    number = tf.as_dtype(dtype).as_datatype_enum
    if draw.random() < 0.1:
        number = draw.choice([*types_pb2.DataType.values(), 99])
    request.inputs["x"].CopyFrom(tensor(draw, number, largest))
    message = request.SerializeToString()
    match draw.randint(0, 9):
        case 0:
            message = fuzz_predict.damaged(draw, message[:100_000])
        case 1:
            message += hostile_entry(draw, largest)
        case 2:
            request.inputs.clear()
            message = request.SerializeToString() + hostile_entry(draw, largest)
    return "", message, {}


def hostile_entry(draw: random.Random, largest: int) -> bytes:
    """Return an input whose fields are small on the wire and large in memory."""
    dim, variant, text = b"\x12\x02\x12\x00", b"\x7a\x02\x1a\x00", b"\x42\x00"
    ints, unknown, handle = b"\x3a\x04\x01\x01\x01\x01", b"\xa2\x06\x00", b"\x72\x00"
    piece = draw.choice([dim, variant, text, ints, unknown, handle, b"\x08\x01"])
    dims = b"\x12\x00" * (size(draw, largest) // 2)
    fields = draw.choice(
        [
            piece * (size(draw, largest) // len(piece)),
            b"\x12" + varint(len(dims)) + dims,
            b"\x3a" + varint(len(dims)) + b"\x01" * len(dims),
        ]
    )
    entry = b"\x0a\x01x\x12" + varint(len(fields)) + fields
    return b"\x12" + varint(len(entry)) + entry


def varint(number: int) -> bytes:
    """Return a number as protobuf writes it."""
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])


def small_body(draw: random.Random, largest: int) -> Message:
    """Return a body of the fuzzer of predict bodies."""
    path, document = fuzz_predict.document(draw)
    body = json.dumps(document).encode("utf-8", "surrogatepass")
    if draw.random() < 0.5:
        body = fuzz_predict.damaged(draw, body)
    return packed(draw, f"/v1/models/{path}", body)


KINDS: list[Callable[[random.Random, int], Message]] = [
    *(json_body, grpc_message, grpc_message, small_body)
]


class Ports:
    """The ports of a server, with a connection of REST for each thread."""

    def __init__(self, rest: int, grpc_port: int) -> None:
        self._rest = rest
        self._channel = grpc.insecure_channel(
            f"127.0.0.1:{grpc_port}", [("grpc.max_receive_message_length", -1)]
        )
        self._predict = self._channel.unary_unary(PREDICT)
        self._own = threading.local()
        self._clients: list[Client] = []

    def close(self) -> None:
        """Close all connections."""
        self._channel.close()
        for client in self._clients:
            client.connection.close()

    def _client(self) -> Client:
        if not hasattr(self._own, "client"):
            self._own.client = Client(self._rest)
            self._clients.append(self._own.client)
        return cast(Client, self._own.client)

    def send(self, message: Message) -> str:
        """Send a message and return the status or code of the answer.

        One that is not allowed is shown, and returned as "unexpected".
        """
        path, body, headers = message
        if not path:
            call = self._predict.future(body, timeout=60)
            code, details = str(call.code().name), str(call.details())
            if code in CODES or details == "max connection age":
                return code
            return unexpected(code, details, body[:300])
        client = self._client()
        try:
            status, answer = client.send("POST", path, body, **headers)
        except OSError:  # refused before it was read
            client.connection.close()  # it opens another one by itself
            return "closed"
        if status not in STATUSES or b"Traceback" in answer:
            return unexpected(status, answer[:300], path, headers, body[:300])
        return str(status)


def unexpected(*details: Any) -> str:
    """Show what should not have happened."""
    print(details, file=sys.stderr, flush=True)
    return UNEXPECTED


def fuzz(
    ports: Ports,
    count: int,
    seed: int,
    largest: int,
    watch: Callable[[], object] = lambda: "",
) -> dict[str, int]:
    """Send messages from several threads, and return the number of each answer.

    Args:
        ports: The server's ports.
        count: The number of messages.
        seed: The seed of the random numbers.
        largest: The largest number of bytes of a message, about.
        watch: What to show with the answers of every thousand.
    """

    def send(number: int) -> str:
        draw = random.Random(seed * 10**9 + number)
        return ports.send(draw.choice(KINDS)(draw, largest))

    answers: collections.Counter[str] = collections.Counter()
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        for start in range(0, count, 1000):
            numbers = range(start, min(count, start + 1000))
            answers.update(pool.map(send, numbers))
            print(numbers.stop, watch(), dict(answers), file=sys.stderr, flush=True)
    return dict(answers)


@contextlib.contextmanager
def serve_both(base: Path) -> Iterator[tuple[int, int, Any]]:
    """Serve models over REST and gRPC; give both ports and the server's state."""
    with serve(base) as (client, serving):
        server = GrpcServer(serving, "127.0.0.1:0")
        server.start()
        try:
            yield client.port, server.port, serving
        finally:
            server.stop(5).wait()


def memory(pid: int, name: str) -> int:
    """Return a line of a process's status in bytes: VmRSS, or VmHWM for the peak."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(s.split()[1]) * 1024 for s in lines if s.startswith(f"{name}:"))


def measure(count: int, seed: int, largest: int) -> dict[str, Any]:
    """Fuzz a server in a process of its own.

    Returns:
        The answers, and in MiB the memory without requests, the bound and the peak.
    """
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        command = [sys.executable, "-m", "tests.service.serving.fuzz_memory"]
        server = stack.enter_context(
            subprocess.Popen(
                [*command, "--serve", directory],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        assert server.stdout is not None
        assert server.stdin is not None
        try:
            ports = stack.enter_context(
                contextlib.closing(Ports(*json.loads(server.stdout.readline())))
            )
            fuzz(ports, 50, seed + 1, 1000)  # what is made at the first request
            Path(f"/proc/{server.pid}/clear_refs").write_text("5", encoding="ascii")
            idle = memory(server.pid, "VmRSS")
            start = time.monotonic()
            answers = fuzz(
                *(ports, count, seed, largest),
                lambda: [memory(server.pid, n) // 2**20 for n in ("VmHWM", "VmRSS")],
            )
            peak, after = memory(server.pid, "VmHWM"), memory(server.pid, "VmRSS")
            assert server.poll() is None
        finally:
            server.stdin.close()
            server.wait(60)
    limits = ServingConfig.max_pending_bytes + ServingConfig.max_decoded_bytes
    limits += dense.MOST_KEPT + heaps.MOST_KEPT
    mib = {"idle": idle, "bound": idle + limits, "peak": peak, "after": after}
    return {
        "answers": answers,
        "seconds": time.monotonic() - start,
        **{name: value // 2**20 for name, value in mib.items()},
    }


def describe(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    answers = dict(sorted(result["answers"].items()))
    counts = ", ".join(f"{count:,} {answer}" for answer, count in answers.items())
    return (
        f"{datetime.date.today()}: {sum(answers.values()):,} requests in "
        f"{result['seconds'] / 60:.0f} minutes: {counts}. Memory of the server's "
        f"process, MiB: {result['idle']} without requests, so the bound is "
        f"{result['bound']}; {result['peak']} at its peak, {result['after']} at the "
        "end."
    )


def main() -> int:
    """Fuzz, or be the server.

    Returns:
        The exit status: 1 if the peak is above the bound or an answer not allowed.
    """
    parser = argparse.ArgumentParser("python -m tests.service.serving.fuzz_memory")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--largest", type=int, default=ServingConfig.max_body_bytes)
    parser.add_argument(
        "--page", type=Path, metavar="FILE.md", help="put the figures there"
    )
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        heaps.limit()  # before TensorFlow has threads, which save the models
        save_all(arguments.serve)
        save_sizes(arguments.serve / "sizes" / "1")
        with serve_both(arguments.serve) as (*ports, _):
            print(json.dumps(ports), flush=True)
            sys.stdin.read()
        return 0
    result = measure(arguments.requests, arguments.seed, arguments.largest)
    figures = describe(result)
    print(figures)
    if arguments.page is not None:
        pages.put(arguments.page, "tests.service.serving.fuzz_memory", figures)
    is_above = result["peak"] > result["bound"]
    return int(is_above or UNEXPECTED in result["answers"])


if __name__ == "__main__":
    sys.exit(main())
