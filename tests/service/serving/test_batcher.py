"""Requests that TensorFlow's batcher runs together."""

import concurrent.futures
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

pytest.importorskip("simdjson", reason="pip install --group serve")

from service.serving.batching import BatchingParameters
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
