"""Hand a replica's figures to Ray, which gathers those of all replicas under the same names."""

from __future__ import annotations

import threading
from typing import Any

from prometheus_client import CollectorRegistry
from ray.serve.metrics import Gauge

COPY_SECONDS = 5.0
_SKIPPED = "_created"
"""Times at which counting began; Ray's figures have none."""


class MetricsCopy:
    """Copies every figure of a registry to Ray, again and again, from a thread of its own.

    Counters and histograms become gauges with the same names and labels: their series are what
    Prometheus asks for. Ray puts ``ray_`` in front, and adds which replica it is.

    Args:
        registry: the figures.
        seconds: between two copies.
    """

    def __init__(self, registry: CollectorRegistry, *, seconds: float = COPY_SECONDS) -> None:
        self._registry, self._seconds = registry, seconds
        self._gauges: dict[str, Any] = {}
        self._stopping = threading.Event()
        threading.Thread(target=self._run, name="metrics", daemon=True).start()

    def stop(self) -> None:
        """Copy no more."""
        self._stopping.set()

    def copy(self) -> None:
        """Copy once."""
        for metric in self._registry.collect():
            for sample in metric.samples:
                if sample.name.endswith(_SKIPPED):
                    continue
                labels: Any = tuple(sample.labels)
                gauge = self._gauges.get(sample.name)
                if gauge is None:
                    gauge = Gauge(sample.name, description=metric.documentation, tag_keys=labels)
                    self._gauges[sample.name] = gauge
                gauge.set(sample.value, tags=dict(sample.labels))

    def _run(self) -> None:
        while not self._stopping.wait(self._seconds):
            self.copy()
