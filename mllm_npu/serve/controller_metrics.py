"""Count what goes through the controller, in the form Prometheus reads."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily

from mllm_npu.serve.forwarding import Ending
from mllm_npu.serve.registry import Registry

PREFIX = "mllm_npu_controller"
SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class ControllerMetrics:
    """Figures of one controller.

    Args:
        workers: whose number and load are shown.
    """

    def __init__(self, workers: Registry) -> None:
        self._collected = CollectorRegistry()
        self._requests = self._counter("requests", "Requests by path and ending", "path", "ending")
        self._retries = self._counter("retries", "Further workers that requests were put to")
        self._seconds = self._histogram("request_seconds", "From request to last byte")
        self._first_byte = self._histogram("first_byte_seconds", "From request to first byte")
        self._gauge("workers", "Workers that are alive").set_function(lambda: len(workers))
        self._gauge("in_flight", "Requests that are with workers").set_function(
            lambda: sum(worker.in_flight for worker in workers)
        )
        self._collected.register(_Removals(workers))

    def tell(
        self,
        path: str,
        ending: Ending,
        num_tried: int,
        seconds: float,
        first_byte_seconds: float | None,
    ) -> None:
        """Count a request that has ended."""
        self._requests.labels(path, ending.value).inc()
        self._retries.inc(max(0, num_tried - 1))
        self._seconds.observe(seconds)
        if first_byte_seconds is not None:
            self._first_byte.observe(first_byte_seconds)

    def page(self) -> bytes:
        """All figures as text."""
        return generate_latest(self._collected)

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", documentation, labels, registry=self._collected)

    def _gauge(self, name: str, documentation: str) -> Gauge:
        return Gauge(f"{PREFIX}_{name}", documentation, registry=self._collected)

    def _histogram(self, name: str, documentation: str) -> Histogram:
        return Histogram(
            f"{PREFIX}_{name}", documentation, registry=self._collected, buckets=SECONDS
        )


class _Removals:
    """Workers that were forgotten, by reason, as the registry counts them."""

    def __init__(self, workers: Registry) -> None:
        self._workers = workers

    def collect(self) -> list[CounterMetricFamily]:
        """Called by the library for each page."""
        family = CounterMetricFamily(
            f"{PREFIX}_workers_removed", "Workers that were forgotten", labels=["reason"]
        )
        for reason, number in self._workers.num_removed.items():
            family.add_metric([reason], number)
        return [family]
