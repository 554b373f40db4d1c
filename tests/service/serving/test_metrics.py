"""The text of the metrics, as TensorFlow Serving prints its own."""

import pytest

pytest.importorskip("simdjson", reason="pip install --group serve")

from service.serving.metrics import Metrics

LATENCY = ":tensorflow:serving:request_latency"
# As TensorFlow Serving prints them: six digits.
LIMITS = ["10", "18", "32.4", "58.32", "104.976", "188.957", "340.122", "612.22"]


def page(metrics: Metrics) -> list[str]:
    return metrics.page().decode().splitlines()


def test_a_time_is_counted_in_every_bucket_whose_limit_it_does_not_exceed() -> None:
    metrics = Metrics()
    for microseconds in (9, 17.9, 18.1, 200, 1e12):
        metrics.request("m", "OK", "predict", "REST", microseconds / 1e6)
    buckets = [line for line in page(metrics) if line.startswith(f"{LATENCY}_bucket")]
    labels = '{{API="predict",entrypoint="REST",le="{}",model_name="m"}}'
    assert buckets[: len(LIMITS)] == [
        f"{LATENCY}_bucket{labels.format(limit)} {count}.0"
        for limit, count in zip(LIMITS, (1, 2, 3, 3, 3, 3, 4, 4), strict=True)
    ]
    assert buckets[-1] == f"{LATENCY}_bucket{labels.format('+Inf')} 5.0"


def test_a_request_that_fails_is_counted_and_has_no_time() -> None:
    metrics = Metrics()
    metrics.request("m", "NOT_FOUND", "predict", "REST", 1.0)
    metrics.runtime("m", "Predict", 0.5)
    lines = page(metrics)
    count = ":tensorflow:serving:request_count"
    assert f'{count}{{model_name="m",status="NOT_FOUND"}} 1.0' in lines
    assert not [line for line in lines if line.startswith(f"{LATENCY}_")]
    runtime = ':tensorflow:serving:runtime_latency_{}{{API="Predict",model_name="m",'
    assert f'{runtime.format("count")}runtime="TF1"}} 1.0' in lines
    assert f'{runtime.format("sum")}runtime="TF1"}} 500000.0' in lines


def test_no_series_has_a_name_that_tensorflow_serving_has_not() -> None:
    """prometheus_client itself adds `_total` and `_created`."""
    metrics = Metrics()
    metrics.request("m", "OK", "predict", "GRPC", 0.001)
    metrics.runtime("m", "Predict", 0.001)
    names = {line.partition("{")[0] for line in page(metrics) if line[0] != "#"}
    assert names == {":tensorflow:serving:request_count"} | {
        f":tensorflow:serving:{name}_latency_{part}"
        for name in ("request", "runtime")
        for part in ("bucket", "count", "sum")
    }
