"""Requests that run together as one batch."""

import concurrent.futures
import json
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("simdjson", reason="pip install --group serve")

from service.serving.batcher import Batcher, row_count
from service.serving.batching import BatchingParameters
from service.serving.session import Arrays
from tests.service.serving.served import publish, send_once, serve

PREDICT = "/v1/models/m:predict"


def test_batching_gives_each_its_own_answer(
    tmp_path: Path, models: Path, scales: Path
) -> None:
    publish(scales / "3", tmp_path / "m" / "1")
    shutil.copytree(models / "troubles", tmp_path / "troubles")
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


class Doubler:
    """Doubles x, and keeps the rows of each run; it waits for `go` before one."""

    def __init__(self) -> None:
        self.runs: list[list[float]] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(
        self, fetches: Sequence[str], feeds: Arrays, timeout: float
    ) -> list[np.ndarray]:
        self.go.wait(30)
        x = feeds["x"]
        self.runs.append(x.ravel().tolist())
        if (x < 0).any():
            raise tf.errors.InvalidArgumentError(None, None, "negative")
        if (x > 1000).any():
            raise tf.errors.InternalError(None, None, "too much")
        return [x * 2 if fetches == ["y"] else x.sum() for _ in fetches]


@contextmanager
def batched(**parameters: Any) -> Iterator[tuple[Any, Doubler]]:
    """Give a function that runs rows in a thread of its own, and what it ends in."""
    doubler = Doubler()
    batcher = Batcher(BatchingParameters(**parameters), doubler)

    def run(*rows: Any, timeout: float = 30.0, fetch: str = "y") -> Any:
        x = np.array(rows, "float32")
        (y,) = batcher.run([fetch], {"x": x}, len(x), timeout)
        return y.tolist()

    with concurrent.futures.ThreadPoolExecutor(16) as pool:

        def ask(*rows: Any, **options: Any) -> Any:
            future = pool.submit(run, *rows, **options)
            time.sleep(0.02)  # so that they are asked in this order
            return future

        yield ask, doubler
        doubler.go.set()
    batcher.close()


def test_a_batch_is_open_until_a_thread_is_free() -> None:
    with batched(num_batch_threads=1, max_batch_size=4) as (ask, doubler):
        doubler.go.clear()
        first, *others = [ask(1), ask(2), ask(3, 4), ask(5, 6), ask(7, 8, 9)]
        doubler.go.set()
        answers = [task.result() for task in (first, *others)]
        assert answers == [[2], [4], [6, 8], [10, 12], [14, 16, 18]]
        assert doubler.runs == [[1], [2, 3, 4], [5, 6], [7, 8, 9]]


def test_batches_have_the_allowed_sizes() -> None:
    with batched(max_batch_size=4, allowed_batch_sizes=(2, 4)) as (ask, doubler):
        assert ask(1).result() == [2]
        assert ask(1, 2, 3).result() == [2, 4, 6]
        assert doubler.runs == [[1, 1], [1, 2, 3, 3]]


def test_requests_of_other_shapes_are_batches_of_their_own() -> None:
    with batched(num_batch_threads=1) as (ask, doubler):
        doubler.go.clear()
        tasks = [ask(1), ask(2), ask([3, 4]), ask(5), ask([6, 7])]
        doubler.go.set()
        answers = [task.result() for task in tasks]
        assert answers == [[2], [4], [[6, 8]], [10], [[12, 14]]]
        assert doubler.runs == [[1], [2, 5], [3, 4, 6, 7]]


def test_one_s_mistake_is_not_the_others_answer() -> None:
    with batched(num_batch_threads=1) as (ask, doubler):
        doubler.go.clear()
        tasks = [ask(1), ask(2), ask(-3), ask(4)]
        doubler.go.set()
        assert [tasks[i].result() for i in (0, 1, 3)] == [[2], [4], [8]]
        with pytest.raises(tf.errors.InvalidArgumentError, match="negative"):
            tasks[2].result()
        doubler.go.clear()
        tasks = [ask(1), ask(2), ask(2000)]
        doubler.go.set()
        for task in tasks[1:]:
            with pytest.raises(tf.errors.InternalError, match="too much"):
                task.result()


def test_too_many_batches_are_refused_and_late_ones_too() -> None:
    with batched(num_batch_threads=1, max_enqueued_batches=2) as (ask, doubler):
        doubler.go.clear()
        running, waiting, other = ask(1), ask(2, timeout=0.1), ask([3])
        with pytest.raises(tf.errors.UnavailableError, match="2 batches wait"):
            ask([[4]]).result()
        with pytest.raises(tf.errors.DeadlineExceededError):
            waiting.result()
        doubler.go.set()
        assert (running.result(), other.result()) == ([2], [[6]])


def test_outputs_without_a_row_for_a_row_are_refused() -> None:
    with batched() as (ask, _), pytest.raises(tf.errors.InvalidArgumentError) as caught:
        ask(1, fetch="sum").result()
    assert caught.value.message == "Batched output tensor has 0 dimensions"


@pytest.mark.parametrize(
    ("shapes", "rows"),
    [
        ([(3,)], 3),
        ([(3, 2), (3,)], 3),
        ([(3,), (2,)], None),
        ([()], None),
        ([(0, 2)], None),
        ([(3,), ()], None),
    ],
)
def test_what_can_be_joined(shapes: list[tuple[int, ...]], rows: int | None) -> None:
    feeds = {str(n): np.zeros(shape) for n, shape in enumerate(shapes)}
    assert row_count(feeds) == rows
