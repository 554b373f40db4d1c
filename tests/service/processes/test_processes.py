"""A service of two processes: whichever is asked, the answer is that of both."""

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("simdjson", reason="pip install --group serve")
pytest.importorskip("grpc", reason="pip install --group serve")

import grpc
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from tests.conftest import REPOSITORY
from tests.service.services import wait_until
from tests.service.serving.served import Client, factor, publish, refused, save_scale

BODY = b'{"instances": [1]}'
COUNT = re.compile(rb'request_count\{model_name="m",status="OK"\} (\d+)')


class Several:
    """A service of two processes, with a model `m` that multiplies by its version."""

    def __init__(self, root: Path) -> None:
        self.opened: list[Client] = []
        self.models = root / "models"
        self.temporary = root / "tmp"
        self.temporary.mkdir()
        words = [sys.executable, "-m", "service", "--serving-processes", "2"]
        words += ["--port", "0", "--grpc-port", "0", "--timeout", "5"]
        words += ["--state-dir", f"{root}/state", "--model-base-path", f"{root}/models"]
        self.process = subprocess.Popen(
            words,
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(self.temporary)},
        )
        self.main = psutil.Process(self.process.pid)
        assert self.process.stdout is not None
        ready = self.process.stdout.readline()
        if not ready.startswith("Ready: http://localhost:"):
            self.end()
            raise AssertionError(ready)
        self.port = int(ready.rpartition(":")[2])

    def end(self) -> None:
        """Kill what still runs."""
        self.process.kill()  # the other process ends by itself
        self.process.communicate()

    @property
    def other(self) -> psutil.Process:
        """The other process."""
        (other,) = self.main.children()
        return other

    def owner(self, client: Client) -> psutil.Process:
        """The process that has the other end of a client's connection."""
        port = client.connection.sock.getsockname()[1]
        (owner,) = (
            process
            for process in (self.main, *self.main.children())
            if any(c.raddr and c.raddr.port == port for c in connections(process))
        )
        return owner

    def client(self, process: psutil.Process) -> Client:
        """A client with a connection to a process, which has answered once."""
        while True:
            client = self.open()
            assert client.status("m")
            if self.owner(client) == process:
                return client

    def open(self) -> Client:
        """A client that is closed at the end."""
        self.opened.append(Client(self.port))
        return self.opened[-1]

    def clients(self) -> tuple[Client, Client]:
        """A client of the main process and one of the other."""
        return self.client(self.main), self.client(self.other)

    def count(self, client: Client) -> int:
        """The answers for `m`, from the metrics."""
        status, page = client.send("GET", "/monitoring/prometheus/metrics")
        match = COUNT.search(page)
        assert status == 200
        assert match, page
        return int(match[1])


def connections(process: psutil.Process) -> list[Any]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.net_connections("tcp")
    return []


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("versions")
    for number in (1, 2):
        save_scale(directory / str(number), number)
    return directory


@contextlib.contextmanager
def running(root: Path, versions: Path) -> Iterator[Several]:
    publish_in = root / "models" / "m"
    publish_in.mkdir(parents=True)
    publish(versions / "1", publish_in / "1")
    service = Several(root)
    try:
        yield service
    finally:
        for client in service.opened:
            client.connection.close()
        service.end()


def test_two_processes_are_one_service(tmp_path: Path, versions: Path) -> None:
    with running(tmp_path, versions) as service:
        both_answer_when_it_is_ready(service)
        what_is_not_for_models_goes_to_the_main_process(service)
        a_request_may_come_in_parts(service)
        requests_that_do_not_wait(service)
        grpc_is_answered_by_both(service)
        a_version_comes_and_goes_in_both_at_once(service, versions)
        one_that_cannot_be_loaded_is_reported_by_both(service)
        a_killed_process_comes_back(service)
        what_has_begun_is_finished_after_sigterm(service)


def both_answer_when_it_is_ready(service: Several) -> None:
    main, other = service.clients()
    before = service.count(main)
    for client in (main, other, other):
        assert factor(client) == 1
        assert client.status("m") == {1: "AVAILABLE"}
    assert service.owner(other) == service.other
    assert service.count(main) == service.count(other) == before + 6


def what_is_not_for_models_goes_to_the_main_process(service: Several) -> None:
    """The connection goes there, whole, and stays there."""
    main, other = service.clients()
    address = other.connection.sock.getsockname()
    paths = ("/v1/jobs", "/readyz", "/", "/v1/nothing", "/V1/models/m")
    for path in paths:
        client = service.client(service.other)
        status, answer = client.send("GET", path)
        assert (status, answer) == main.send("GET", path) or path == "/"
        assert status in (200, 400)
        assert service.owner(client) == service.main
    # A body that has come with the head goes too.
    status, answer = other.send("POST", "/v1/jobs", b'{"model": "none"}')
    assert status in (415, 422)
    assert service.owner(other) == service.main
    assert factor(other) == 1
    assert other.connection.sock.getsockname() == address


def a_request_may_come_in_parts(service: Several) -> None:
    for request, expected in (
        (head("POST", "/v1/models/m:predict", len(BODY)) + BODY, b'"predictions"'),
        (head("GET", "/v1/jobs"), b'"jobs"'),
    ):
        client = service.client(service.other).connection.sock
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(20):
            client.sendall(request[at : at + 1])
            time.sleep(0.001)
        client.sendall(request[20:])
        assert expected in answer(client)


def requests_that_do_not_wait(service: Several) -> None:
    """They stay on their connection, so one is told to take another."""
    sock = service.client(service.other).connection.sock
    predict = head("POST", "/v1/models/m:predict", len(BODY)) + BODY
    sock.sendall(predict + predict + head("GET", "/v1/jobs"))
    assert b'"predictions"' in answer(sock)
    assert b'"predictions"' in answer(sock)
    last = answer(sock)
    assert b"on a connection of its own" in last
    assert sock.recv(1) == b""
    # A large answer is read, but its end has not been noted when the next comes.
    sock = service.client(service.other).connection.sock
    body = json.dumps({"instances": [1] * 50_000}).encode()
    for _ in range(3):
        sock.sendall(head("POST", "/v1/models/m:predict", len(body)) + body)
        assert len(answer(sock)) > 100_000
    sock.sendall(head("GET", "/v1/jobs"))
    assert b'"jobs"' in answer(sock)


def grpc_is_answered_by_both(service: Several) -> None:
    ports = {
        c.laddr.port for c in connections(service.other) if c.status == "LISTEN"
    } - {service.port}
    (port,) = ports
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "m"
    request.inputs["x"].dtype = 1
    request.inputs["x"].float_val.append(3)
    request.inputs["x"].tensor_shape.dim.add(size=1)
    options = [("grpc.use_local_subchannel_pool", 1)]
    with contextlib.ExitStack() as stack:
        seen: set[int] = set()
        while len(seen) < 2:
            channel = stack.enter_context(
                grpc.insecure_channel(f"127.0.0.1:{port}", options)
            )
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            assert list(stub.Predict(request, 30).outputs["y"].float_val) == [3]
            seen = {
                process.pid
                for process in (service.main, service.other)
                for c in connections(process)
                if c.laddr.port == port and c.status == "ESTABLISHED"
            }


def a_version_comes_and_goes_in_both_at_once(service: Several, versions: Path) -> None:
    asked, checked = service.clients()
    publish(versions / "2", service.models / "m" / "2")
    while (newest := int(factor(asked))) == 1:
        ask_for_the_same(asked, checked, newest)
        asked, checked = checked, asked
    ask_for_the_same(asked, checked, newest)
    assert asked.status("m")[2] == checked.status("m")[2] == "AVAILABLE"
    wait_until(lambda: asked.status("m") == {2: "AVAILABLE", 1: "END"})
    assert checked.status("m") == {2: "AVAILABLE", 1: "END"}
    for client in (asked, checked):
        assert "Specific(m, 1)" in refused(client, "/versions/1")
    shutil.rmtree(service.models / "m" / "2")
    for client in (asked, checked):
        wait_until(lambda client=client: client.status("m") == {1: "AVAILABLE"})
    assert factor(asked) == factor(checked) == 1


def ask_for_the_same(asked: Client, checked: Client, number: int) -> None:
    """What one has answered with the other has, unless a newer one has replaced it."""
    path = f"/v1/models/m/versions/{number}:predict"
    status, _ = checked.send("POST", path, BODY)
    assert status == 200 or factor(checked) > number


def one_that_cannot_be_loaded_is_reported_by_both(service: Several) -> None:
    broken = service.models / "m" / "3"
    broken.mkdir()
    main, other = service.clients()
    wait_until(lambda: main.status("m").get(3) == "END")
    path = "/v1/models/m/versions/3"
    assert main.send("GET", path) == other.send("GET", path)
    assert factor(main) == factor(other) == 1
    shutil.rmtree(broken)
    wait_until(lambda: main.status("m") == other.status("m") == {1: "AVAILABLE"})


def a_killed_process_comes_back(service: Several) -> None:
    main, other = service.clients()
    assert factor(other) == 1
    before = service.count(main)
    first = service.other
    first.kill()
    first.wait(60)
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        factor(other)
    for _ in range(10):  # none of them goes to the one that is not there
        client = service.open()
        assert factor(client) == 1
        assert service.owner(client) == service.main
    assert service.count(main) == before + 10
    wait_until(lambda: is_listening(service))
    assert service.other != first
    assert factor(service.client(service.other)) == 1


def is_listening(service: Several) -> bool:
    return any(
        c.status == "LISTEN" and c.laddr.port == service.port
        for process in service.main.children()
        for c in connections(process)
    )


def what_has_begun_is_finished_after_sigterm(service: Several) -> None:
    begun = [client.connection.sock for client in service.clients()]
    for sock in begun:
        sock.sendall(head("POST", "/v1/models/m:predict", len(BODY)) + BODY[:5])
    other = service.other
    wait_until(lambda: all(service_has_read(service, sock) for sock in begun))
    service.main.terminate()
    wait_until(lambda: not is_listening(service))
    for sock in begun:
        sock.sendall(BODY[5:])
        assert answer(sock) == b'{"predictions":[1.0]}'
    assert service.process.wait(60) == 0
    assert not other.is_running()
    assert not list(service.temporary.glob("kerasnorm-*"))


@pytest.mark.slow
def test_one_that_hangs_is_replaced(tmp_path: Path, versions: Path) -> None:
    """A new version comes all the same, and no count is lost."""
    with running(tmp_path, versions) as service:
        main, other = service.clients()
        assert factor(other) == 1
        before = service.count(main)
        hanging = service.other
        hanging.suspend()
        publish(versions / "2", service.models / "m" / "2")
        wait_until(lambda: main.status("m").get(2) == "AVAILABLE")
        assert not hanging.is_running()
        assert service.count(main) > before
        wait_until(lambda: is_listening(service))
        main, other = service.clients()  # an idle connection is closed
        assert factor(other) == 2
        wait_until(lambda: main.status("m") == {2: "AVAILABLE", 1: "END"})


LEADER = """
import sys, time
from pathlib import Path
from service.options import ServiceOptions
from service.processes.leading import Crew
from service.processes.messages import Orders
from service.serving.config import ServingConfig
directory = Path(sys.argv[1])
options = ServiceOptions.read(["--serving-processes", "2"])
Crew(directory, 1).start(Orders(options, ServingConfig(directory), directory))
time.sleep(600)
"""


def test_nothing_is_left_of_a_killed_service(tmp_path: Path) -> None:
    """Not even of one whose processes are just starting."""
    shared = tmp_path / "shared"
    shared.mkdir()
    words = [sys.executable, "-c", LEADER, str(shared)]
    with subprocess.Popen(words, cwd=REPOSITORY) as leader:
        try:
            wait_until(lambda: others_of(leader.pid))
            (other,) = others_of(leader.pid)
        finally:
            leader.kill()
    wait_until(lambda: not other.is_running() or other.status() == "zombie")
    wait_until(lambda: not shared.exists())


def others_of(leader: int) -> list[psutil.Process]:
    """Return the other processes, not what the imports of the main process start."""
    return [
        process
        for process in psutil.process_iter(["ppid", "cmdline"])
        if process.info["ppid"] == leader
        and "service.processes" in (process.info["cmdline"] or ())
    ]


def service_has_read(service: Several, client: socket.socket) -> bool:
    """Return whether nothing waits in a connection's queue, by Linux's own table."""
    ours = f":{client.getsockname()[1]:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines():
        _, local, remote, _, queues, *_ = line.split()
        if local.endswith(f":{service.port:04X}") and remote.endswith(ours):
            return queues.endswith(":00000000")
    return False


def head(method: str, path: str, length: int = 0) -> bytes:
    lines = (
        f"{method} {path} HTTP/1.1",
        "Host: localhost",
        f"Content-Length: {length}",
    )
    return "\r\n".join([*lines, "", ""]).encode()


def answer(sock: socket.socket) -> bytes:
    """Return the body of the next answer, which has a length."""
    sock.settimeout(60)
    received = b""
    while b"\r\n\r\n" not in received:
        received += sock.recv(1)
    match = re.search(rb"(?i)content-length: (\d+)", received)
    assert match, received
    body = b""
    while len(body) < int(match[1]):
        body += sock.recv(int(match[1]) - len(body))
    return body
