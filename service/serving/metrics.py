"""Prometheus metrics under TensorFlow Serving's names."""

import bisect
import threading
from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import HistogramMetricFamily, Metric

PATH = "/monitoring/prometheus/metrics"
CONTENT_TYPE = "text/plain"

# TensorFlow's Buckets::Exponential(10, 1.8, 33), in microseconds.
_LIMITS = [10 * 1.8**exponent for exponent in range(33)]
_PREFIX = ":tensorflow:serving:"


class _Histogram:
    def __init__(self) -> None:
        self.counts = [0] * (len(_LIMITS) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect.bisect_right(_LIMITS, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        total = 0
        limits = [f"{limit:g}" for limit in _LIMITS] + ["+Inf"]
        result: list[tuple[str, float]] = []
        for limit, count in zip(limits, self.counts, strict=True):
            total += count
            result.append((limit, total))
        return result


class Metrics:
    """Counts of requests and distributions of their times.

    A collector of its own, because `prometheus_client.Counter` would add `_total` to
    the names that TensorFlow Serving's dashboards ask for.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str]] = Counter()
        self._histograms: dict[str, dict[tuple[str, ...], _Histogram]] = {
            "request_latency": {},
            "runtime_latency": {},
        }
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def request(
        self, model: str, status: str, api: str, entrypoint: str, seconds: float
    ) -> None:
        """Counts a request that has been answered.

        Args:
            model: The model's name.
            status: The name of the code, such as OK.
            api: What was asked for, such as predict.
            entrypoint: REST or GRPC.
            seconds: How long it took, from the whole body to the answer.
        """
        with self._lock:
            self._requests[model, status] += 1
            if status == "OK":
                self._observe("request_latency", (model, api, entrypoint), seconds)

    def runtime(self, model: str, api: str, seconds: float) -> None:
        """Notes how long TensorFlow has run."""
        with self._lock:
            self._observe("runtime_latency", (model, api, "TF1"), seconds)

    def page(self) -> bytes:
        """All metrics as text."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """The metrics, as prometheus_client asks for them."""
        with self._lock:
            # A "counter" would be printed with `_total` in its name.
            requests = Metric(
                f"{_PREFIX}request_count",
                "Requests that have been answered.",
                "untyped",
            )
            for (model, status), count in self._requests.items():
                labels = {"model_name": model, "status": status}
                requests.add_sample(requests.name, labels, count)
            yield requests
            for name, last_label, text in (
                ("request_latency", "entrypoint", "Microseconds of a request."),
                ("runtime_latency", "runtime", "Microseconds in TensorFlow."),
            ):
                family = HistogramMetricFamily(
                    f"{_PREFIX}{name}", text, labels=["model_name", "API", last_label]
                )
                for values, histogram in self._histograms[name].items():
                    family.add_metric(
                        values, histogram.buckets(), sum_value=histogram.sum
                    )
                yield family

    def _observe(self, name: str, labels: tuple[str, ...], seconds: float) -> None:
        histogram = self._histograms[name].setdefault(labels, _Histogram())
        histogram.observe(seconds * 1e6)
