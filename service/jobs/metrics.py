"""Prometheus metrics of the jobs."""

from collections.abc import Callable, Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
)

from service.jobs.rows import State
from service.jobs.store import Store


class JobMetrics:
    """What the table of jobs says, and how often trainers were started again.

    Args:
        store: The table.
        restarts: Return how many trainers that died this service has started again.
    """

    def __init__(self, store: Store, restarts: Callable[[], int]) -> None:
        self._store = store
        self._restarts = restarts

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, as prometheus_client asks for them."""
        jobs = GaugeMetricFamily(
            "kerasnorm_jobs", "Jobs that are kept, by their state.", labels=["state"]
        )
        seconds = GaugeMetricFamily(
            "kerasnorm_job_seconds",
            "Seconds from the first start to the end of the jobs that have ended.",
            labels=["state"],
        )
        totals = self._store.totals()
        for state in State:
            number, time = totals.get(state, (0, 0.0))
            jobs.add_metric([state], number)
            seconds.add_metric([state], time)
        yield jobs
        yield seconds
        yield CounterMetricFamily(
            "kerasnorm_trainer_restarts",
            "Trainers that died and were started again by this service.",
            value=self._restarts(),
        )
