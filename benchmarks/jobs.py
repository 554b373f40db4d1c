"""What the service costs: its answers beside a long queue, and a job's extra time."""

import argparse
import functools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import requests

from training.options.values import REPOSITORY

URL = "http://127.0.0.1:8599"
JOBS = f"{URL}/v1/jobs"
CONFIG: dict[str, str | int] = {"model": "mlp", "epochs": 3}


def main() -> None:
    """Print medians as they are measured, and write jobs.json."""
    parser = argparse.ArgumentParser("python -m benchmarks.jobs", description=__doc__)
    parser.add_argument("--queued", type=int, default=1000, help="jobs in the queue")
    parser.add_argument("--pairs", type=int, default=3, help="jobs with and without")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "runs/benchmarks")
    options = parser.parse_args()
    figures = {
        **_answers(options.queued),
        **_overhead(options.pairs),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "jobs.json").write_text(json.dumps(figures, indent=2) + "\n")


def _answers(number: int) -> dict[str, float]:
    """Return the median milliseconds to submit, list and cancel on one connection."""
    with _service() as (session, _):
        blocker = session.post(JOBS, json={"model": "cnn", "epochs": 1000}).json()["id"]
        submit = [
            _milliseconds(lambda: session.post(JOBS, json={"model": "mlp"}))
            for _ in range(number)
        ]
        listing = [
            _milliseconds(lambda: session.get(f"{JOBS}?state=queued&limit=100"))
            for _ in range(100)
        ]
        cancel = [
            _milliseconds(functools.partial(session.post, f"{JOBS}/{job}/cancel"))
            for job in range(blocker + 1, blocker + 1 + number)
        ]
        session.post(f"{JOBS}/{blocker}/cancel")
    figures = {"submit_ms": submit, "list_ms": listing, "cancel_ms": cancel}
    for name, times in figures.items():
        quartiles = statistics.quantiles(times, n=4)
        print(f"{name}: {quartiles[1]:.2f} ({quartiles[0]:.2f}-{quartiles[2]:.2f})")
    return {name: statistics.median(times) for name, times in figures.items()}


def _overhead(pairs: int) -> dict[str, float]:
    """Compare the seconds of a job by train.py and by the service, taken in turn."""
    alone, served, shares = [], [], []
    for pair in range(pairs):
        alone.append(_seconds(_train))
        with _service() as (session, process):
            before = sum(process.cpu_times()[:2])
            served.append(_seconds(functools.partial(_serve, session)))
            used = sum(process.cpu_times()[:2]) - before
        shares.append(used / served[-1])
        print(
            f"pair {pair + 1}: {alone[-1]:.1f} s, {served[-1]:.1f} s, ratio "
            f"{served[-1] / alone[-1]:.3f}, the service's processor time {used:.2f} s"
        )
    ratio = statistics.median(s / a for s, a in zip(served, alone, strict=True))
    share = statistics.median(shares)
    print(f"job by the service / by train.py: {ratio:.3f}; processor time {share:.4f}")
    return {
        "alone_s": statistics.median(alone),
        "job_ratio": ratio,
        "processor_share": share,
    }


def _train() -> None:
    with tempfile.TemporaryDirectory() as root:
        options = [f"--{name}={value}" for name, value in CONFIG.items()]
        subprocess.run(
            [
                *(sys.executable, "-u", str(REPOSITORY / "train.py"), *options),
                *(f"--run-dir={root}/runs", f"--export-dir={root}/models"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def _serve(session: requests.Session) -> None:
    job = session.post(JOBS, json=CONFIG).json()["id"]
    while (state := session.get(f"{JOBS}/{job}").json()["state"]) != "succeeded":
        if state not in ("queued", "running"):
            raise RuntimeError(f"The job has {state}.")
        time.sleep(0.5)


@contextmanager
def _service() -> Iterator[tuple[requests.Session, psutil.Process]]:
    with tempfile.TemporaryDirectory() as root:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "service", "--port", "8599"),
                *("--state-dir", f"{root}/state", "--model-base-path", f"{root}/m"),
            ],
            cwd=REPOSITORY,
            stderr=subprocess.DEVNULL,
        )
        session = requests.Session()
        try:
            while not _answers_at(session):
                if process.poll() is not None:
                    raise RuntimeError("The service has ended; start it to see why.")
                time.sleep(0.1)
            yield session, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait()


def _answers_at(session: requests.Session) -> bool:
    try:
        return session.get(JOBS).ok
    except requests.ConnectionError:
        return False


def _milliseconds(call: Callable[[], requests.Response]) -> float:
    begin = time.perf_counter()
    call().raise_for_status()
    return 1000 * (time.perf_counter() - begin)


def _seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
