"""Versions that come and go, broken ones among them, and requests meanwhile."""

import concurrent.futures
import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("simdjson", reason="pip install --group serve")

from service.serving.servables import Servables
from tests.service.serving.served import (
    Client,
    factor,
    publish,
    refused,
    send_once,
    serve,
    until,
)

PREDICT = "/v1/models/m:predict"


def test_a_version_that_appears_replaces_the_one_before(
    tmp_path: Path, scales: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with serve(tmp_path) as (client, serving):
        assert client.status("m") == {} == client.status("empty")
        publish(scales / "1", tmp_path / "m" / "1")
        until(lambda: client.status("m") == {1: "AVAILABLE"})
        assert factor(client) == 1
        publish(scales / "3", tmp_path / "m" / "3")
        until(lambda: client.status("m") == {3: "AVAILABLE", 1: "END"})
        assert serving.servables.needed(tmp_path / "m") == {3}
        assert factor(client) == 3
        assert "Specific(m, 1)" in refused(client, "/versions/1")
        # A lower number is not newer.
        publish(scales / "2", tmp_path / "m" / "2")
        time.sleep(0.5)
        assert client.status("m") == {3: "AVAILABLE", 1: "END"}
        # Without it the one before comes back.
        shutil.rmtree(tmp_path / "m" / "3")
        until(lambda: client.status("m").get(2) == "AVAILABLE")
        until(lambda: 3 not in client.status("m"))
        assert factor(client) == 2
        shutil.rmtree(tmp_path / "m")
        until(lambda: client.status("m") == {})
        assert "Latest(m)" in refused(client)


def test_a_model_is_served_within_two_seconds(tmp_path: Path, scales: Path) -> None:
    """By the poll interval of a second, which is the default."""
    with serve(tmp_path, poll_interval=1.0) as (client, serving):
        assert serving.servables.is_settled
        publish(scales / "2", tmp_path / "new" / "1")
        until(lambda: client.status("new") == {1: "AVAILABLE"})
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
        until(lambda: client.status("m") == {2: "END", 1: "AVAILABLE"})
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
        until(lambda: client.status("m") == {2: "AVAILABLE", 1: "END"})
        assert factor(client) == 2


def test_after_a_restart_a_broken_version_is_passed_over(
    tmp_path: Path, scales: Path
) -> None:
    publish(scales / "1", tmp_path / "m" / "1")
    publish(scales / "2", tmp_path / "m" / "2")
    damage("truncated graph", tmp_path / "m" / "2")
    assert Servables(tmp_path).needed(tmp_path / "m") is None  # it has not looked yet
    with serve(tmp_path) as (client, serving):
        until(lambda: client.status("m") == {2: "END", 1: "AVAILABLE"})
        assert factor(client) == 1
        assert serving.servables.needed(tmp_path / "m") == {1}


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
        until(lambda: client.status("m") == {2: "AVAILABLE", 1: "END"})
        assert factor(client) == 2


def test_under_load_no_request_fails_while_versions_come_and_go(
    tmp_path: Path, scales: Path
) -> None:
    """Each answer is that of one version that was there; bad requests are mixed in."""
    publish(scales / "1", tmp_path / "m" / "1")
    finished = threading.Event()
    bad = [b"", b"{}", b'{"instances": ["x"]}', b'{"instances": [[1], 1]}', b"[" * 5000]

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
                until(lambda n=number: client.status("m").get(n) == "AVAILABLE")
                shutil.rmtree(tmp_path / "m" / str(number - 1))
            until(lambda: client.status("m") == {8: "AVAILABLE"})
        finally:
            finished.set()
        counts, seen = zip(*(task.result() for task in asking), strict=True)
    assert sum(counts) > 50
    assert set.union(*seen) <= {1.0, 2.0, 3.0, 4.0}
    assert len(set.union(*seen)) == 4


def test_a_request_under_way_ends_on_the_version_it_began_on(
    tmp_path: Path, models: Path, scales: Path
) -> None:
    shutil.copytree(models / "troubles", tmp_path / "m")
    body = b'{"signature_name": "count", "inputs": [200000]}'
    with (
        serve(tmp_path, timeout=300) as (client, _),
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        slow = pool.submit(send_once, client.port, PREDICT, body)
        publish(scales / "2", tmp_path / "m" / "2")
        until(lambda: client.status("m").get(2) == "AVAILABLE")
        assert factor(client) == 2
        status, answer = slow.result()
        assert (status, json.loads(answer)) == (200, {"outputs": [200000]})
        until(lambda: client.status("m") == {2: "AVAILABLE", 1: "END"})
