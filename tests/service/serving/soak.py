"""Load for minutes while versions come and go.

`python -m tests.service.serving.soak 600` loads the service for 600 seconds.

64 connections ask for the newest version and for versions by number. A tenth of the
bodies are wrong. Every answer must be the number of a version or refuse a wrong body.
Memory must not grow.
"""

import argparse
import collections
import datetime
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import pages
from tests.service.serving.fuzz_predict import resident_bytes
from tests.service.serving.served import Client, save_scale, serve, until

CONNECTIONS = 64
FACTORS = 4
BAD = [
    b"",
    b"{}",
    b"[" * 3000,
    b'{"instances": ["x"]}',
    b'{"inputs": [[1], 1]}',
    b"\xff",
]


def factor_of(version: int) -> int:
    """Return the factor of a version."""
    return 1 + version % FACTORS


def ask(port: int, seed: int, end: float, counts: collections.Counter[str]) -> None:
    """Ask on one connection until the end.

    Raises:
        AssertionError: If an answer is not allowed.
    """
    draw = random.Random(seed)
    client = Client(port)
    version = 1
    while time.time() < end:
        if draw.random() < 0.1:
            status, answer = client.send(
                "POST", "/v1/models/m:predict", draw.choice(BAD)
            )
            assert status == 400, answer
            counts["refused"] += 1
            continue
        numbers = [float(np.float32(draw.uniform(-1, 1))) for _ in range(4)]
        body = json.dumps({"instances": numbers}).encode()
        if draw.random() < 0.2:
            (version,) = [
                n for n, state in client.status("m").items() if state == "AVAILABLE"
            ][:1] or [version]
            path = f"/v1/models/m/versions/{version}:predict"
            allowed = {factor_of(version)}
        else:
            path = "/v1/models/m:predict"
            allowed = set(range(1, FACTORS + 1))
        status, answer = client.send("POST", path, body)
        if status == 404 and len(allowed) == 1:
            counts["gone meanwhile"] += 1
            continue
        assert status == 200, answer
        predictions: list[float] = json.loads(answer)["predictions"]
        shown = [float(np.float32(prediction)) for prediction in predictions]
        products = [
            [float(np.float32(x) * np.float32(factor)) for x in numbers]
            for factor in allowed
        ]
        assert shown in products, (numbers, shown, allowed)
        counts["answered"] += 1
    client.connection.close()


def load(port: int, seconds: float) -> collections.Counter[str]:
    """Ask on all connections; raise the first error that one of them meets."""
    counts: collections.Counter[str] = collections.Counter()
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            ask(port, seed, end, counts)
        except BaseException as error:
            failures.append(error)

    end = time.time() + seconds
    threads = [threading.Thread(target=work, args=(i,)) for i in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return counts


def soak(seconds: float) -> dict[str, Any]:
    """Serve here, and let another process ask, while versions come and go.

    Returns:
        The counts of answers, the number of versions, and the memory over time.

    Raises:
        AssertionError: If an answer is not allowed.
    """
    memory = []
    with tempfile.TemporaryDirectory() as directory:
        sources = Path(directory, "sources")
        for factor in range(1, FACTORS + 1):
            save_scale(sources / str(factor), factor)
        model = Path(directory, "base", "m")
        model.mkdir(parents=True)

        def publish(version: int) -> None:
            hidden = model / f".{version}"
            shutil.copytree(sources / str(factor_of(version)), hidden)
            hidden.rename(model / str(version))

        publish(1)
        with serve(model.parent, poll_interval=1.0) as (client, _):
            command = [sys.executable, "-m", "tests.service.serving.soak", str(seconds)]
            asking = subprocess.Popen(
                [*command, "--ask", str(client.port)], stdout=subprocess.PIPE
            )
            version = 1
            while asking.poll() is None:
                version += 1
                publish(version)
                until(lambda n=version: client.status("m").get(n) == "AVAILABLE", 60)
                shutil.rmtree(model / str(version - 1))
                memory.append(resident_bytes() // 2**20)
                time.sleep(1)
            output, _ = asking.communicate()
    assert asking.returncode == 0
    every = max(1, len(memory) // 12)
    return {
        "counts": json.loads(output),
        "versions": version,
        "memory_mib": memory[::every],
    }


def describe(seconds: float, result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    counts, memory = result["counts"], result["memory_mib"]
    return (
        f"{datetime.date.today()}: {seconds / 60:g} minutes, {CONNECTIONS} "
        f"connections, {result['versions']} versions one after the other; "
        f"{counts['answered']:,} requests answered, each with the number of a version "
        f"that was there, {counts['refused']:,} bad ones refused with status 400, "
        f"{counts.get('gone meanwhile', 0):,} for a version that had gone in the "
        "meantime (404); nothing else. Memory of the server's process from the "
        f"first versions to the last, MiB: {', '.join(map(str, memory))}."
    )


def main() -> None:
    """Load a server, or be the process that asks, and print the result."""
    parser = argparse.ArgumentParser("python -m tests.service.serving.soak")
    parser.add_argument("seconds", type=float)
    parser.add_argument(
        "--page", type=Path, metavar="FILE.md", help="put the figures there"
    )
    parser.add_argument("--ask", type=int, metavar="PORT", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ask is not None:
        print(json.dumps(load(arguments.ask, arguments.seconds)))
        return
    figures = describe(arguments.seconds, soak(arguments.seconds))
    print(figures)
    if arguments.page is not None:
        pages.put(arguments.page, "tests.service.serving.soak", figures)


if __name__ == "__main__":
    main()
