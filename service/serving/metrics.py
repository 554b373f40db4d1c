"""Prometheus metrics under TensorFlow Serving's names."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
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

    Args:
        shared: The directory where several processes count, whose sums are shown.
    """

    def __init__(self, shared: Path | None = None) -> None:
        self._shared = shared
        self._requests = Counter(
            f"{_PREFIX}request_count",
            "Requests that have been answered.",
            labelnames=["model_name", "status"],
            registry=None,
        )
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
        self._requests.labels(model, status).inc()
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
        return map(_as_tensorflow_serving, self._collected())

    def _collected(self) -> Iterable[Metric]:
        if self._shared is not None:
            return MultiProcessCollector(None, str(self._shared)).collect()
        metrics = (self._requests, self._request_latency, self._runtime_latency)
        return (each for metric in metrics for each in metric.collect())


def _histogram(name: str, description: str, last_label: str) -> Histogram:
    return Histogram(
        f"{_PREFIX}{name}",
        description,
        labelnames=["model_name", "API", last_label],
        buckets=_LIMITS,
        registry=None,
    )


def _as_tensorflow_serving(given: Metric) -> Metric:
    """Return a metric with limits of six digits, and without its creation time."""
    # The library would print a "counter" with `_total` in its name.
    kind = "untyped" if given.type == "counter" else given.type
    metric = Metric(given.name, given.documentation, kind)
    for sample in given.samples:
        labels = dict(sample.labels)
        if (limit := labels.get("le", "+Inf")) != "+Inf":
            labels["le"] = f"{float(limit):g}"
        if not sample.name.endswith("_created"):
            metric.add_sample(sample.name.removesuffix("_total"), labels, sample.value)
    return metric
