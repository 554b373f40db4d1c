"""Predictions by the number of processes that serve."""

import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.servers import Server, export, free_port

Figure = Callable[[Server, np.ndarray, float], float]
Figures = dict[int, dict[str, float]]
LARGE = 256


def numbers() -> list[int]:
    """Return the numbers of processes: 1, 2, 4 and so on, up to one for each core."""
    cores = len(os.sched_getaffinity(0))
    return [2**power for power in range(cores.bit_length())]


def measure(
    network: str, seconds: float, rounds: int, throughput: Figure, latency: Figure
) -> Figures:
    """Return figures by the number of processes, in rounds in which all take turns.

    Args:
        network: The model that answers.
        seconds: Of each timing.
        rounds: How often each is timed.
        throughput: Measure the answers a second on many connections.
        latency: Measure the seconds of an answer on one connection.

    Returns:
        The medians: the `throughput` of one image, the `latency` of many.
    """
    one = np.zeros((1, 28, 28, 1), np.uint8)
    many = np.zeros((LARGE, 28, 28, 1), np.uint8)
    found: dict[int, dict[str, list[float]]] = {
        number: {"throughput": [], "latency": []} for number in numbers()
    }
    with tempfile.TemporaryDirectory() as base, ExitStack() as stack:
        export(network, Path(base, "m", "1"))
        servers = {}
        for number in found:
            port = free_port()
            words = ["-m", "service", "--serve-only", "--model-base-path", base]
            words += ["--port", str(port), "--grpc-port", "0"]
            words += ["--serving-processes", str(number)]
            servers[number] = Server([sys.executable, *words], port)
            stack.callback(servers[number].stop)
        for server in servers.values():
            server.wait(one)  # the model is available once all processes have it
        for _ in range(rounds):
            for number, server in servers.items():
                found[number]["throughput"].append(throughput(server, one, seconds))
                found[number]["latency"].append(latency(server, many, seconds))
    return {
        number: {name: statistics.median(values) for name, values in each.items()}
        for number, each in found.items()
    }


def table(results: dict[str, Figures], connections: int) -> str:
    """Return the figures of all networks as Markdown.

    Args:
        results: What `measure` has found, by network.
        connections: The number of connections of the throughput.
    """
    lines = [
        f"| | processes | 1 image, {connections} connections, 1/s | / one process "
        f"| {LARGE} images, 1 connection, ms | / one process |",
        "|---|---|---|---|---|---|",
    ]
    for network, found in results.items():
        for number, each in found.items():
            ratios = {name: each[name] / found[1][name] for name in each}
            lines.append(
                f"| {network} | {number} "
                f"| {each['throughput']:.0f} | {ratios['throughput']:.2f} "
                f"| {each['latency'] * 1e3:.1f} | {ratios['latency']:.2f} |"
            )
    return "\n".join(lines)
