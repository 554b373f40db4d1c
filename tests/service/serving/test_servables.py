"""Versions that come and go: policies, labels, broken ones, links, load, limits."""

import concurrent.futures
import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("simdjson", reason="the extra `serve` is not installed")

from service.http_protocol import HttpProtocol
from service.serving.batching import BatchingParameters, read_batching_parameters
from service.serving.model_config import every, latest, read_config_file, specific
from service.serving.servables import Servables
from service.serving.versions import State, Version
from tests.conftest import REPOSITORY
from tests.service.serving.served import (
    Client,
    save_half_plus_two,
    save_scale,
    save_troubles,
    send_once,
    serve,
)
from tests.service.serving.served import until as eventually
from training.errors import UserError

PREDICT = "/v1/models/m:predict"


@pytest.fixture(scope="session")
def scales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that multiply by 1, 2, 3 and 4, named by their factor."""
    directory = tmp_path_factory.mktemp("scales")
    for factor in range(1, 5):
        save_scale(directory / str(factor), factor)
    return directory


def publish(source: Path, target: Path) -> None:
    """Puts a version there as train.py does: written elsewhere, then renamed."""
    hidden = target.with_name(f".{target.name}")
    shutil.copytree(source, hidden)
    hidden.rename(target)


def factor(client: Client, model: str = "m", version: str = "") -> float:
    path = f"/v1/models/{model}{version}:predict"
    status, answer = client.send("POST", path, b'{"instances": [1]}')
    assert status == 200, answer
    return float(json.loads(answer)["predictions"][0])


def refused(client: Client, version: str = "") -> str:
    path = f"/v1/models/m{version}:predict"
    status, answer = client.send("POST", path, b'{"instances": [1]}')
    assert 400 <= status < 500, answer
    return str(json.loads(answer)["error"])


def test_a_version_that_appears_replaces_the_one_before(
    tmp_path: Path, scales: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with serve(tmp_path) as (client, _):
        assert client.status("m") == {} == client.status("empty")
        publish(scales / "1", tmp_path / "m" / "1")
        eventually(lambda: client.status("m") == {1: "AVAILABLE"})
        assert factor(client) == 1
        publish(scales / "3", tmp_path / "m" / "3")
        eventually(lambda: client.status("m") == {3: "AVAILABLE", 1: "END"})
        assert factor(client) == 3
        assert "Specific(m, 1)" in refused(client, "/versions/1")
        # A lower number is not newer.
        publish(scales / "2", tmp_path / "m" / "2")
        time.sleep(0.5)
        assert client.status("m") == {3: "AVAILABLE", 1: "END"}
        # Without it the one before comes back.
        shutil.rmtree(tmp_path / "m" / "3")
        eventually(lambda: client.status("m").get(2) == "AVAILABLE")
        eventually(lambda: 3 not in client.status("m"))
        assert factor(client) == 2
        shutil.rmtree(tmp_path / "m")
        eventually(lambda: client.status("m") == {})
        assert "Latest(m)" in refused(client)


def test_a_model_is_served_within_two_seconds(tmp_path: Path, scales: Path) -> None:
    """By the poll interval of a second, which is the default."""
    with serve(tmp_path, poll_interval=1.0) as (client, serving):
        assert serving.servables.is_settled
        publish(scales / "2", tmp_path / "new" / "1")
        eventually(lambda: client.status("new") == {1: "AVAILABLE"})
        assert factor(client, "new") == 2


@pytest.mark.parametrize(
    "name", ["one", "1.0", "-1", "+1", "1 ", "٣", "99999999999999999999", ".1"]
)
def test_names_that_are_no_versions(tmp_path: Path, scales: Path, name: str) -> None:
    publish(scales / "1", tmp_path / "m" / "1")
    publish(scales / "2", tmp_path / "m" / name)
    with serve(tmp_path) as (client, _):
        assert client.status("m") == {1: "AVAILABLE"}


def test_files_and_hidden_directories_are_no_models(
    tmp_path: Path, scales: Path
) -> None:
    publish(scales / "1", tmp_path / ".m" / "1")
    publish(scales / "1", tmp_path / os.fsdecode(b"m\xff") / "1")
    (tmp_path / "file").write_text("")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "1").write_text("a file")
    with serve(tmp_path) as (client, _):
        for name in (".m", "file", "m", "m%ff"):
            assert client.status(name) == {}
            client.send("POST", f"/v1/models/{name}:predict", b"{}")
        assert client.send("GET", "/monitoring/prometheus/metrics")[0] == 200


def damage(kind: str, version: Path) -> None:
    pb, data = version / "saved_model.pb", version / "variables"
    match kind:
        case "empty":
            shutil.rmtree(version)
            version.mkdir()
        case "not a model":
            pb.write_text("hello")
        case "truncated graph":
            os.truncate(pb, pb.stat().st_size // 2)
        case "empty graph":
            os.truncate(pb, 0)
        case "no variables":
            shutil.rmtree(data)
        case "truncated variables":
            os.truncate(next(data.glob("*.data-*")), 1)
        case "garbled index":
            (data / "variables.index").write_bytes(os.urandom(200))
        case "directory for a file":
            pb.unlink()
            pb.mkdir()
        case "pipe for a file":
            pb.unlink()
            os.mkfifo(pb)


DAMAGES = [
    *("empty", "not a model", "truncated graph", "empty graph", "no variables"),
    *("truncated variables", "garbled index", "directory for a file"),
    "pipe for a file",
]


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_broken_version_is_reported_and_replaces_nothing(
    tmp_path: Path, scales: Path, kind: str
) -> None:
    publish(scales / "1", tmp_path / "m" / "1")
    broken = tmp_path / "broken"
    shutil.copytree(scales / "2", broken)
    damage(kind, broken)
    with serve(tmp_path) as (client, _):
        broken.rename(tmp_path / "m" / "2")
        eventually(lambda: client.status("m") == {2: "END", 1: "AVAILABLE"})
        _, answer = client.send("GET", "/v1/models/m/versions/2")
        (status,) = json.loads(answer)["model_version_status"]
        assert status["status"]["error_code"] not in ("OK", "")
        assert status["status"]["error_message"]
        assert "Traceback" not in status["status"]["error_message"]
        assert factor(client) == 1
        assert "Specific(m, 2)" in refused(client, "/versions/2")
        # Put right, it is served.
        shutil.rmtree(tmp_path / "m" / "2")
        shutil.copytree(scales / "2", tmp_path / "m" / "2")
        eventually(lambda: client.status("m") == {2: "AVAILABLE", 1: "END"})
        assert factor(client) == 2


def test_damaged_files_are_reported_and_end_nothing(
    tmp_path: Path, scales: Path
) -> None:
    draw = random.Random(0)
    states = set()
    for number in range(1, 41):
        directory = tmp_path / "m" / str(number)
        shutil.copytree(scales / "2", directory)
        path = draw.choice([p for p in sorted(directory.rglob("*")) if p.is_file()])
        content = bytearray(path.read_bytes())
        place = draw.randrange(len(content))
        match draw.choice(["cut off", "flip a bit", "put in"]):
            case "cut off":
                del content[place:]
            case "flip a bit":
                content[place] ^= 1 << draw.randrange(8)
            case "put in":
                content[place:place] = draw.randbytes(8)
        path.write_bytes(content)
        version = Version("m", number, directory)
        version.load(tmp_path)
        states.add(version.state)
        if version.state is State.END:
            assert version.error is not None
            assert version.error.message
            assert "Traceback" not in version.error.message
        version.unload()
    assert states == {State.AVAILABLE, State.END}


def test_after_a_restart_a_broken_version_is_passed_over(
    tmp_path: Path, scales: Path
) -> None:
    publish(scales / "1", tmp_path / "m" / "1")
    publish(scales / "2", tmp_path / "m" / "2")
    damage("truncated graph", tmp_path / "m" / "2")
    with serve(tmp_path) as (client, _):
        eventually(lambda: client.status("m") == {2: "END", 1: "AVAILABLE"})
        assert factor(client) == 1


def test_a_version_that_is_copied_slowly_is_served_when_it_is_whole(
    tmp_path: Path, scales: Path
) -> None:
    publish(scales / "1", tmp_path / "m" / "1")
    target = tmp_path / "m" / "2"
    with serve(tmp_path) as (client, _):
        (target / "variables").mkdir(parents=True)
        data = "variables/variables.data-00000-of-00001"
        for name in ("saved_model.pb", data, "variables/variables.index"):
            content = (scales / "2" / name).read_bytes()
            (target / name).write_bytes(content[: len(content) // 2])
            time.sleep(0.3)
            assert factor(client) == 1
            (target / name).write_bytes(content)
        eventually(lambda: client.status("m") == {2: "AVAILABLE", 1: "END"})
        assert factor(client) == 2


@pytest.mark.parametrize("where", ["version", "model", "file", "variables"])
def test_links_that_lead_out_are_refused(
    tmp_path: Path, scales: Path, where: str
) -> None:
    base = tmp_path / "base"
    version = base / "m" / "1"
    version.parent.mkdir(parents=True)
    match where:
        case "version":
            version.symlink_to(scales / "1")
        case "model":
            version.parent.rmdir()
            version.parent.symlink_to(scales)
        case _:
            shutil.copytree(scales / "1", version)
            name = {"file": "saved_model.pb", "variables": "variables"}[where]
            (version / name).rename(tmp_path / name)
            (version / name).symlink_to(tmp_path / name)
    with serve(base) as (client, _):
        eventually(lambda: set(client.status("m").values()) == {"END"})
        _, answer = client.send("GET", "/v1/models/m")
        error = json.loads(answer)["model_version_status"][0]["status"]
        assert error["error_code"] == "PERMISSION_DENIED"
        assert "leads out of the model base path" in error["error_message"]


def test_links_within_the_base_are_followed(tmp_path: Path, scales: Path) -> None:
    publish(scales / "1", tmp_path / "m" / "1")
    (tmp_path / "alias").symlink_to("m")
    with serve(tmp_path) as (client, _):
        assert factor(client, "alias") == 1


@pytest.mark.parametrize(
    ("policy", "chosen"),
    [
        (latest(), {9}),
        (latest(2), {9, 4}),
        (latest(9), {1, 4, 9}),
        (every, {1, 4, 9}),
        (specific(1, 4, 7), {1, 4}),
        (specific(), set()),
    ],
)
def test_policies(policy: Any, chosen: set[int]) -> None:
    assert policy({1, 4, 9}) == chosen
    assert policy(set()) == set()


def config(policy: str = "", labels: str = "", base_path: str = "m") -> str:
    return (
        f'model_config_list {{ config {{ name: "m" base_path: "{base_path}" '
        f'model_platform: "tensorflow" {policy} {labels} }} }}'
    )


ENTRY = 'config { name: "m" base_path: "m" }'
TWICE = f"model_config_list {{ {ENTRY} {ENTRY} }}"


@pytest.fixture
def configured(tmp_path: Path, scales: Path) -> Path:
    pytest.importorskip("tensorflow_serving", reason="no extra `grpc`")
    for number in (1, 2, 3):
        publish(scales / str(number), tmp_path / "m" / str(number))
    publish(scales / "4", tmp_path / "other" / "1")
    return tmp_path / "models.config"


def test_a_config_file_names_models_versions_and_labels(configured: Path) -> None:
    base = configured.parent
    labels = (
        'version_labels { key: "stable" value: 1 } '
        'version_labels { key: "gone" value: 7 }'
    )
    configured.write_text(
        config("model_version_policy { specific { versions: 1 versions: 2 } }", labels)
    )
    with serve(base, model_config_file=configured) as (client, _):
        eventually(lambda: client.status("m") == {2: "AVAILABLE", 1: "AVAILABLE"})
        assert client.status("other") == {}
        assert factor(client) == 2
        assert factor(client, version="/versions/1") == 1
        assert factor(client, version="/labels/stable") == 1
        assert "Unrecognized servable version label: canary" in refused(
            client, "/labels/canary"
        )
        assert "Specific(m, 7)" in refused(client, "/labels/gone")
        _, answer = client.send("GET", "/v1/models/m/labels/stable/metadata")
        assert json.loads(answer)["model_spec"]["version"] == "1"
        # The file is read again, and one that is wrong changes nothing.
        configured.write_text("nonsense {")
        time.sleep(0.5)
        assert factor(client, version="/labels/stable") == 1
        configured.write_text(
            config(
                "model_version_policy { all {} }",
                'version_labels { key: "stable" value: 3 }',
            )
        )
        eventually(lambda: client.status("m") == dict.fromkeys((3, 2, 1), "AVAILABLE"))
        assert factor(client, version="/labels/stable") == 3
        configured.write_text(
            config("model_version_policy { latest { num_versions: 2 } }")
        )
        eventually(
            lambda: client.status("m") == {3: "AVAILABLE", 2: "AVAILABLE", 1: "END"}
        )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("nonsense {", "must name a readable ModelServerConfig"),
        (config(base_path="../elsewhere"), "must lie under .*Received: '../elsewhere'"),
        (config(base_path="/etc"), "must lie under .*Received: '/etc'"),
        (config().replace('"tensorflow"', '"caffe"'), "Received: 'caffe' for m"),
        (TWICE, "Received: 'm' twice"),
        (config().replace('name: "m"', ""), "needs a `name`"),
        ("custom_model_config {}", "`custom_model_config` is not supported"),
    ],
)
def test_a_wrong_config_file_is_one_line(
    tmp_path: Path, text: str, complaint: str
) -> None:
    pytest.importorskip("tensorflow_serving", reason="no extra `grpc`")
    path = tmp_path / "models.config"
    path.write_text(text)
    with pytest.raises(UserError, match=complaint) as caught:
        Servables(tmp_path, path)
    assert "\n" not in str(caught.value).strip()
    with pytest.raises(UserError, match=r"missing\.config"):
        read_config_file(tmp_path / "missing.config", tmp_path)


def test_under_load_no_request_fails_while_versions_come_and_go(
    tmp_path: Path, scales: Path
) -> None:
    """Each answer is that of one version that was there; bad requests are mixed in."""
    publish(scales / "1", tmp_path / "m" / "1")
    finished = threading.Event()
    bad = [b"", b"{}", b'{"instances": ["x"]}', b'{"instances": [[1]]}', b"[" * 5000]

    def ask(port: int, number: int) -> tuple[int, set[float]]:
        client = Client(port)
        count, seen = 0, set()
        turn = number
        while not finished.is_set():
            turn += 1
            if turn % 3:
                seen.add(factor(client))
                count += 1
            else:
                assert client.send("POST", PREDICT, bad[turn % len(bad)])[0] == 400
        client.connection.close()
        return count, seen

    with (
        serve(tmp_path) as (client, _),
        concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):
        asking = [pool.submit(ask, client.port, number) for number in range(8)]
        try:
            for number in range(2, 9):
                source = scales / str(1 + number % 4)
                publish(source, tmp_path / "m" / str(number))
                eventually(lambda n=number: client.status("m").get(n) == "AVAILABLE")
                shutil.rmtree(tmp_path / "m" / str(number - 1))
            eventually(lambda: client.status("m") == {8: "AVAILABLE"})
        finally:
            finished.set()
        counts, seen = zip(*(task.result() for task in asking), strict=True)
    assert sum(counts) > 50
    assert set.union(*seen) <= {1.0, 2.0, 3.0, 4.0}
    assert len(set.union(*seen)) == 4


def test_a_request_under_way_ends_on_the_version_it_began_on(
    tmp_path: Path, scales: Path
) -> None:
    save_troubles(tmp_path / "m" / "1")
    body = b'{"signature_name": "count", "inputs": [300000]}'
    with (
        serve(tmp_path, timeout=300) as (client, _),
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        slow = pool.submit(send_once, client.port, PREDICT, body)
        publish(scales / "2", tmp_path / "m" / "2")
        eventually(lambda: client.status("m").get(2) == "AVAILABLE")
        assert factor(client) == 2
        status, answer = slow.result()
        assert (status, json.loads(answer)) == (200, {"outputs": [300000]})
        eventually(lambda: client.status("m") == {2: "AVAILABLE", 1: "END"})


def test_stopping_finishes_what_has_begun(tmp_path: Path) -> None:
    save_troubles(tmp_path / "m" / "1")
    body = b'{"signature_name": "count", "inputs": [300000]}'
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        with serve(tmp_path, timeout=300) as (client, serving):
            slow = [
                pool.submit(send_once, client.port, PREDICT, body) for _ in range(3)
            ]
            eventually(lambda: serving.workers.under_way == 3)
        for task in slow:
            status, answer = task.result()
            assert (status, json.loads(answer)) == (200, {"outputs": [300000]})


ENDLESS = b'{"signature_name": "count", "inputs": [2000000000]}'


def test_time_limits_the_queue_and_its_room(tmp_path: Path) -> None:
    save_troubles(tmp_path / "m" / "1")
    with (
        serve(tmp_path, timeout=2, max_queue=4, threads=2) as (client, serving),
        concurrent.futures.ThreadPoolExecutor(4) as pool,
    ):

        def endless() -> tuple[int, bytes]:
            return send_once(client.port, PREDICT, ENDLESS)

        tasks = [pool.submit(endless) for _ in range(4)]
        eventually(lambda: serving.workers.under_way == 4)
        status, answer = client.send("POST", PREDICT, b'{"instances": [1]}')
        assert status == 429
        assert "4 requests are under way" in json.loads(answer)["error"]
        assert client.send("GET", "/healthz") == (200, b"ok")
        for task in tasks:
            status, answer = task.result()
            assert status == 504
            assert "imed out" in json.loads(answer)["error"]
        # What has run out of time has stopped, so there is room again.
        eventually(lambda: serving.workers.under_way == 0)
        assert client.predict("m", {"instances": [1]}) == {"predictions": [1.0]}
        assert serving.workers.pending_bytes == 0


def test_bodies_that_are_too_long_too_many_or_too_slow(tmp_path: Path) -> None:
    save_half_plus_two(tmp_path / "m" / "1")
    options = {"max_body_bytes": 2000, "max_pending_bytes": 3000, "timeout": 1.5}
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1600\r\n\r\n"
    with serve(tmp_path, **options) as (client, serving):
        path = PREDICT
        address = ("127.0.0.1", client.port)
        status, answer = client.send("POST", path, b"1" * 2001)
        assert status == 413
        assert "2000" in json.loads(answer)["error"]
        with contextlib.ExitStack() as stack:
            waiting = [
                stack.enter_context(
                    socket.create_connection(("127.0.0.1", client.port))
                )
                for _ in range(2)
            ]
            for connection in waiting:
                connection.sendall(head.encode() + b"1" * 1400)
            eventually(lambda: serving.workers.pending_bytes == 2800)
            status, answer = send_once(client.port, path, b"1" * 300)
            assert status == 429
            for connection in waiting:
                assert b" 408 " in connection.recv(100)
        eventually(lambda: serving.workers.pending_bytes == 0)
        assert client.predict("m", {"instances": [1]}) == {"predictions": [2.5]}
        # A client that goes away in the middle leaves nothing behind.
        with socket.create_connection(address) as connection:
            connection.sendall(head.encode() + b"1" * 10)
            eventually(lambda: serving.workers.pending_bytes == 10)
        eventually(lambda: serving.workers.pending_bytes == 0)


def test_heads_that_are_too_long_or_too_slow(
    tmp_path: Path, scales: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(scales / "1", tmp_path / "m" / "1")
    with serve(tmp_path) as (client, _):
        address = ("127.0.0.1", client.port)
        for head in (
            b"GET /" + b"a" * 100_000,
            b"GET / HTTP/1.1\r\na: " + b"a" * 2**17,
        ):
            with socket.create_connection(address, timeout=60) as connection:
                connection.sendall(head + b"a" * 2**17)
                assert b"has at most 65536 bytes" in connection.recv(1000)
        monkeypatch.setattr(HttpProtocol, "seconds", 0.3)
        for head in (b"", b"GET / HTTP/1.1\r\nHost:"):
            with socket.create_connection(address, timeout=60) as connection:
                connection.sendall(head)
                assert connection.recv(1000) == b""
        # One that has sent its head may take longer for the rest.
        path = (
            f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18\r\n\r\n"
        )
        with socket.create_connection(address, timeout=60) as connection:
            connection.sendall(path.encode() + b'{"instances"')
            time.sleep(0.6)
            connection.sendall(b": [1]}")
            assert b" 200 OK" in connection.recv(1000)


def test_batching_gives_each_its_own_answer(tmp_path: Path, scales: Path) -> None:
    publish(scales / "3", tmp_path / "m" / "1")
    save_troubles(tmp_path / "troubles" / "1")
    batching = BatchingParameters(
        max_batch_size=16, batch_timeout_micros=20_000, max_enqueued_batches=100
    )
    with (
        serve(tmp_path, batching=batching, threads=16) as (client, _),
        concurrent.futures.ThreadPoolExecutor(16) as pool,
    ):

        def ask(number: int) -> Any:
            body = {"instances": [float(number)] * (1 + number % 3)}
            status, answer = send_once(client.port, PREDICT, json.dumps(body).encode())
            assert status == 200, answer
            return json.loads(answer)["predictions"]

        numbers = range(64)
        for number, answer in zip(numbers, pool.map(ask, numbers), strict=True):
            assert answer == [3.0 * number] * (1 + number % 3)
        many = json.dumps({"inputs": [1] * 17}).encode()
        status, answer = client.send("POST", PREDICT, many)
        assert status == 400
        assert json.loads(answer)["error"].startswith(
            "Task size 17 is larger than maximum input batch size 16"
        )
        status, answer = client.send(
            "POST", "/v1/models/troubles:predict", b'{"instances": [-1]}'
        )
        assert status == 400
        assert "not positive" in json.loads(answer)["error"]
        _, answer = client.send("GET", "/v1/models/m/metadata")
        assert b'"method_name":"tensorflow/serving/predict"' in answer


def test_the_batching_parameters_of_a_file(tmp_path: Path) -> None:
    """As in TensorFlow Serving's documentation of batching."""
    path = tmp_path / "batching.config"
    path.write_text(
        "max_batch_size { value: 128 }\n"
        "batch_timeout_micros { value: 0 }\n"
        "max_enqueued_batches { value: 1000000 }\n"
        "num_batch_threads { value: 8 }\n"
        "allowed_batch_sizes: 8 allowed_batch_sizes: 128"
    )
    expected = BatchingParameters(128, 0, 1000000, 8, (8, 128))
    assert read_batching_parameters(path) == expected
    path.write_text("")
    assert read_batching_parameters(path) == BatchingParameters()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("max_batch_size: 128", "must name a readable BatchingParameters"),
        ("max_size { value: 1 }", 'no field named "max_size"'),
        ("max_batch_size { value: 0 }", "`max_batch_size` must be .*Received: 0"),
        ("batch_timeout_micros { value: -1 }", "at least 0. Received: -1"),
        ("allowed_batch_sizes: [8, 16]", r"1000. Received: \[8, 16\]"),
        ("allowed_batch_sizes: [0, 1000]", r"Received: \[0, 1000\]"),
        ("allowed_batch_sizes: [9, 8, 1000]", r"Received: \[9, 8, 1000\]"),
    ],
)
def test_a_wrong_batching_parameters_file_is_one_line(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "batching.config"
    path.write_text(text)
    with pytest.raises(UserError, match=complaint) as caught:
        read_batching_parameters(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"missing\.config"):
        read_batching_parameters(tmp_path / "missing.config")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--batching-parameters-file", "x"], "needs `--enable-batching`"),
        (["--enable-batching", "--batching-parameters-file", "x"], "file` must name"),
        (["--timeout", "0"], "must be more than 0. Received: 0"),
        (["--timeout", "nan"], "must be more than 0. Received: nan"),
        (["--max-queue", "0"], "must be at least 1. Received: 0"),
        (["--port", "65536"], "must be between 0 and 65535. Received: 65536"),
        (["--grpc-port", "99999"], "must be between 0 and 65535. Received: 99999"),
    ],
)
def test_wrong_options(tmp_path: Path, options: list[str], complaint: str) -> None:
    process = subprocess.run(
        [
            *(sys.executable, "-m", "service", "--serve-only"),
            *("--model-base-path", str(tmp_path), *options),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 2
    assert complaint in process.stderr.splitlines()[-1]


def test_calls_that_come_together_run_together(tmp_path: Path) -> None:
    """A batch of 4 is waited for; 4 calls of one row are one."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def count(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"rows": tf.fill(tf.shape(x), tf.size(x)), "x": x}

    tf.saved_model.save(tf.Module(), str(tmp_path / "m" / "1"), signatures=count)
    batching = BatchingParameters(max_batch_size=4, batch_timeout_micros=1_000_000)
    with (
        serve(tmp_path, batching=batching, threads=4) as (client, _),
        concurrent.futures.ThreadPoolExecutor(4) as pool,
    ):
        body = b'{"instances": [1.0]}'
        asked = [pool.submit(send_once, client.port, PREDICT, body) for _ in range(4)]
        for task in asked:
            status, answer = task.result()
            expected = {"predictions": [{"rows": 4, "x": 1.0}]}
            assert (status, json.loads(answer)) == (200, expected)


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

    for number, value in ((1, [1.0]), (2, [[1.0]])):
        shutil.copytree(scales / "1", tmp_path / "m" / str(number))
        warm_up(tmp_path / "m" / str(number), x=np.float32(value))
    with serve(tmp_path) as (client, _):
        # A request that fails says that the model is not as its maker thinks.
        eventually(lambda: client.status("m") == {2: "END", 1: "AVAILABLE"})
        _, answer = client.send("GET", "/v1/models/m/versions/2")
        assert b"must have the shape (None,). Received: (1, 1)." in answer


def test_health_readiness_and_metrics(tmp_path: Path, scales: Path) -> None:
    publish(scales / "1", tmp_path / "m" / "1")
    with serve(tmp_path) as (client, _):
        assert client.send("GET", "/healthz") == (200, b"ok")
        assert client.send("GET", "/readyz") == (200, b"ok")
        for _ in range(3):
            factor(client)
        refused(client, "/versions/9")
        for name in ("a", "b", "c"):  # names that nobody has make no series
            client.send("POST", f"/v1/models/{name}:predict", b"{}")
        status, page = client.send("GET", "/monitoring/prometheus/metrics")
        lines = page.decode().splitlines()
        prefix = ":tensorflow:serving:"
        assert status == 200
        assert f'{prefix}request_count{{model_name="m",status="OK"}} 3.0' in lines
        assert (
            f'{prefix}request_count{{model_name="m",status="NOT_FOUND"}} 1.0' in lines
        )
        assert (
            f'{prefix}request_count{{model_name="(none)",status="NOT_FOUND"}} 3.0'
            in lines
        )
        latency = f'{prefix}request_latency_bucket{{API="predict",entrypoint="REST",le='
        buckets = [line for line in lines if line.startswith(latency)]
        assert len(buckets) == 34
        assert buckets[-1].endswith('le="+Inf",model_name="m"} 3.0')
        limits = [float(line.split('le="')[1].split('"')[0]) for line in buckets[:-1]]
        np.testing.assert_allclose(limits, 10 * 1.8 ** np.arange(33), rtol=1e-5)
        assert any(line.startswith(f"{prefix}runtime_latency_sum") for line in lines)
