"""Predictions over HTTP beside the bare call: `python -m benchmarks.serving`.

The service and a minimal FastAPI application answer the same requests with the same
model. They take turns, each in processes of its own. Ray Serve follows, where it is
installed. The servers and the client share the machine's cores.
"""

import argparse
import functools
import json
import os
import selectors
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from benchmarks import beside, pages, processes
from benchmarks.servers import HERE, RAY_SERVE, Server, export, receive, servers
from benchmarks.timing import environment

BARE, BARE_BESIDE_RAY = "bare call", "bare call beside Ray"
NETWORKS = ("mlp", "cnn")
CONNECTIONS = 32
LARGE = 256


def latency(call: Callable[[], Any], seconds: float) -> float:
    """Return the median time of calls, one after the other."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end or len(times) < 10:
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def ask(server: Server, images: np.ndarray, seconds: float) -> float:
    """Return the median latency on one connection."""
    request = server.request(images)
    with server.connect() as connection:

        def call() -> None:
            connection.sendall(request)
            receive(connection)

        latency(call, seconds / 5)
        return latency(call, seconds)


def throughput(server: Server, images: np.ndarray, seconds: float) -> float:
    """Return the answers a second on many connections, each with one open request."""
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
    """Return the calls a second, with the number of threads that makes the most."""
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


def measure(network: str, seconds: float, rounds: int) -> dict[str, Any]:
    """Return all figures of a network: medians over rounds in which all take turns."""
    draw = np.random.default_rng(0)
    one = draw.integers(0, 256, (1, 28, 28, 1), np.uint8)
    many = draw.integers(0, 256, (LARGE, 28, 28, 1), np.uint8)
    with tempfile.TemporaryDirectory() as base:
        export(network, Path(base, "m", "1"))
        predict = tf.saved_model.load(f"{base}/m/1").signatures["serving_default"]
        bare_one = functools.partial(predict, images=tf.constant(one))
        bare_many = functools.partial(predict, images=tf.constant(many))
        figures: dict[str, dict[str, list[float]]] = {}

        def note(name: str, figure: str, value: float) -> None:
            figures.setdefault(name, {}).setdefault(figure, []).append(value)

        # Ray's processes are never idle, so that they would slow down the others.
        for bare, names in ((BARE, HERE), (BARE_BESIDE_RAY, RAY_SERVE)):
            with servers(Path(base), names) as running:
                for _ in range(rounds if names else 0):
                    note(bare, "latency", latency(bare_one, seconds))
                    note(bare, "large", latency(bare_many, seconds))
                    note(bare, "throughput", bare_throughput(bare_one, seconds))
                    for name, server in running.items():
                        note(name, "latency", ask(server, one, seconds))
                        note(name, "large", ask(server, many, seconds))
                        note(name, "throughput", throughput(server, one, seconds))
    return {
        name: {figure: statistics.median(values) for figure, values in part.items()}
        for name, part in figures.items()
    }


def table(network: str, figures: dict[str, dict[str, float]]) -> str:
    """Return the figures of a network as Markdown."""
    bare: dict[str, float] = {}
    lines = [
        f"| {network} | 1 image, ms | / bare | {LARGE} images, ms | / bare "
        f"| 1 image, {CONNECTIONS} connections, 1/s | / bare |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, part in figures.items():
        bare = part if name in (BARE, BARE_BESIDE_RAY) else bare
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


def describe(results: dict[str, Any]) -> str:
    """Return the origin of the figures and all tables, as Markdown."""
    tables = (table(network, results[network]) for network in NETWORKS)
    return "\n\n".join([origin(results), *tables])


def origin(results: dict[str, Any]) -> str:
    """Return when and on what the figures were measured."""
    made = results["environment"]
    return (
        f"{made['date'][:10]}, {made['cpu']}, {made['threads']} threads, Python "
        f"{made['python']}, TensorFlow {made['tensorflow']}."
    )


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser("python -m benchmarks.serving")
    parser.add_argument("--seconds", type=float, default=3, help="for each figure")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--beside", action="store_true", help="only beside a training job, and without"
    )
    parser.add_argument(
        "--processes", action="store_true", help="only by the number of processes"
    )
    parser.add_argument("--output", type=Path, metavar="FILE.json")
    parser.add_argument(
        "--page", type=Path, metavar="FILE.md", help="put the tables there"
    )
    arguments = parser.parse_args()
    results: dict[str, Any] = {"environment": environment()}
    texts: dict[str, str] = {}
    timing = (arguments.seconds, arguments.rounds)
    if not arguments.beside and not arguments.processes:
        for network in NETWORKS:
            results[network] = measure(network, *timing)
            print(table(network, results[network]), end="\n\n")
        texts["benchmarks.serving"] = describe(results)
    if not arguments.processes:
        found = {network: beside.measure(network, *timing) for network in NETWORKS}
        results["beside"] = found
        texts["benchmarks.beside"] = f"{origin(results)}\n\n{beside.table(found)}"
    if not arguments.beside:
        by_number = {
            network: processes.measure(network, *timing, throughput, ask)
            for network in NETWORKS
        }
        results["processes"] = by_number
        lines = processes.table(by_number, CONNECTIONS)
        texts["benchmarks.processes"] = f"{origin(results)}\n\n{lines}"
    for name in ("benchmarks.beside", "benchmarks.processes"):
        print(texts.get(name, ""), end="\n\n")
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(results, indent=1), encoding="utf-8")
    if arguments.page is not None:
        for name, text in texts.items():
            pages.put(arguments.page, name, text)


if __name__ == "__main__":
    main()
