"""Predictions on one connection, with and without a training job beside them."""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import requests

from benchmarks.servers import Server, export, free_port, receive

_JOB: dict[str, str | int] = {"model": "cnn", "epochs": 1000}


def measure(network: str, seconds: float, rounds: int) -> dict[str, dict[str, float]]:
    """Return milliseconds of one image's prediction, in rounds that take turns.

    Args:
        network: The model that answers.
        seconds: Of each timing.
        rounds: How often each is timed.

    Returns:
        The median and the 99th percentile, `alone` and `beside` a job that trains the
        CNN on Fashion-MNIST: each the median over the rounds.
    """
    image = np.zeros((1, 28, 28, 1), np.uint8)
    found: dict[str, list[dict[str, float]]] = {"alone": [], "beside": []}
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        export(network, root / "models" / "m" / "1")
        (root / "data").mkdir()
        port = free_port()
        words = [
            *(sys.executable, "-m", "service", "--port", str(port), "--grpc-port", "0"),
            *("--model-base-path", f"{root}/models", "--state-dir", f"{root}/state"),
            *("--data-root", f"{root}/data"),
        ]
        server = Server(words, port)
        try:
            server.wait(image)
            jobs = f"http://127.0.0.1:{port}/v1/jobs"
            job = {**_JOB, "data_dir": f"{root}/data"}
            for _ in range(rounds):
                found["alone"].append(_latencies(server, image, seconds))
                url = f"{jobs}/{requests.post(jobs, json=job).json()['id']}"
                _wait(url, lambda it: it["progress"] is not None)
                found["beside"].append(_latencies(server, image, seconds))
                requests.post(f"{url}/cancel").raise_for_status()
                _wait(url, lambda it: it["state"] == "cancelled")
        finally:
            server.stop()
    return {
        name: {
            figure: statistics.median(each[figure] for each in rounds_)
            for figure in ("p50", "p99")
        }
        for name, rounds_ in found.items()
    }


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return the figures of all networks as Markdown."""
    lines = [
        "| 1 image, 1 connection | median, ms | beside a job | 99 %, ms "
        "| beside a job | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for network, found in results.items():
        alone, beside = found["alone"], found["beside"]
        lines.append(
            f"| {network} | {alone['p50']:.2f} | {beside['p50']:.2f} "
            f"| {alone['p99']:.2f} | {beside['p99']:.2f} "
            f"| {beside['p99'] / alone['p99']:.2f} |"
        )
    return "\n".join(lines)


def _latencies(server: Server, image: np.ndarray, seconds: float) -> dict[str, float]:
    request = server.request(image)
    times: list[float] = []
    with server.connect() as connection:
        end = time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            connection.sendall(request)
            receive(connection)
            times.append(1000 * (time.perf_counter() - start))
    return {"p50": statistics.median(times), "p99": float(np.percentile(times, 99))}


def _wait(url: str, holds: Callable[[dict[str, Any]], bool]) -> None:
    while not holds(job := requests.get(url).json()):
        if job["state"] == "failed":
            raise SystemExit(f"error: the job has failed: {job['message']}")
        time.sleep(0.2)
