"""Prometheus metrics under TensorFlow Serving's names."""

import threading
from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

PATH = "/monitoring/prometheus/metrics"
CONTENT_TYPE = "text/plain"

# TensorFlow's Buckets::Exponential(10, 1.8, 33), in microseconds.
_LIMITS = [10 * 1.8**exponent for exponent in range(33)]
_PREFIX = ":tensorflow:serving:"


class Metrics:
    """Counts of requests and distributions of their times.

    It is a collector itself, because the library adds to what TensorFlow Serving's
    dashboards ask for: `_total` to the names of counters, `_created` to histograms.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str]] = Counter()
        self._request_latency = _histogram(
            "request_latency", "Microseconds of a request.", "entrypoint"
        )
        self._runtime_latency = _histogram(
            "runtime_latency", "Microseconds in TensorFlow.", "runtime"
        )
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def request(
        self, model: str, status: str, api: str, entrypoint: str, seconds: float
    ) -> None:
        """Count a request that has been answered.

        Args:
            model: The model's name.
            status: The name of the code, such as OK.
            api: What was asked for, such as predict.
            entrypoint: REST or GRPC.
            seconds: The time from the whole body to the answer.
        """
        with self._lock:
            self._requests[model, status] += 1
        if status == "OK":
            self._request_latency.labels(model, api, entrypoint).observe(seconds * 1e6)

    def runtime(self, model: str, api: str, seconds: float) -> None:
        """Record how long TensorFlow has run."""
        self._runtime_latency.labels(model, api, "TF1").observe(seconds * 1e6)

    def add(self, collector: Collector) -> None:
        """Show the metrics of another part of the service too."""
        self._registry.register(collector)

    def page(self) -> bytes:
        """Return all metrics as text."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, as prometheus_client asks for them."""
        yield self._request_count()
        for histogram in (self._request_latency, self._runtime_latency):
            yield from map(_as_tensorflow_serving, histogram.collect())

    def _request_count(self) -> Metric:
        # The library would print a "counter" with `_total` in its name.
        metric = Metric(
            f"{_PREFIX}request_count", "Requests that have been answered.", "untyped"
        )
        with self._lock:
            counts = list(self._requests.items())
        for (model, status), count in counts:
            metric.add_sample(
                metric.name, {"model_name": model, "status": status}, count
            )
        return metric


def _histogram(name: str, description: str, last_label: str) -> Histogram:
    return Histogram(
        f"{_PREFIX}{name}",
        description,
        labelnames=["model_name", "API", last_label],
        buckets=_LIMITS,
        registry=None,
    )


def _as_tensorflow_serving(histogram: Metric) -> Metric:
    """Return a histogram with limits of six digits, and without its creation time."""
    metric = Metric(histogram.name, histogram.documentation, histogram.type)
    for sample in histogram.samples:
        labels = dict(sample.labels)
        if (limit := labels.get("le", "+Inf")) != "+Inf":
            labels["le"] = f"{float(limit):g}"
        if not sample.name.endswith("_created"):
            metric.add_sample(sample.name, labels, sample.value)
    return metric
