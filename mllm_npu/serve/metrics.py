"""What a worker counts and measures, as Prometheus reads it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from mllm_npu.serve.answerer import AnswererStats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SPEED_SECONDS = 30.0
"""Length of the window over which tokens per second are counted."""

_FIRST_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_LONG_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Metrics:
    """The figures of one worker, in a registry of its own.

    Args:
        stats: tells how busy the answerer is, asked when the figures are read.
        clock: seconds that only grow.
    """

    def __init__(
        self, *, stats: Callable[[], AnswererStats], clock: Callable[[], float] = time.monotonic
    ) -> None:
        registry = CollectorRegistry()
        self.registry = registry
        self.clock = clock
        self.requests = Counter(
            "mllm_npu_requests",
            "Requests by path and status.",
            ("path", "status"),
            registry=registry,
        )
        self.errors = Counter(
            "mllm_npu_errors", "Requests that were refused or failed.", ("kind",), registry=registry
        )
        self.prompt_tokens = Counter(
            "mllm_npu_prompt_tokens", "Tokens of questions.", registry=registry
        )
        self.new_tokens = Counter(
            "mllm_npu_new_tokens", "Tokens of replies, a picture counted as one.", registry=registry
        )
        self.pictures = Counter("mllm_npu_pictures", "Pictures drawn.", registry=registry)
        self.first_event = Histogram(
            "mllm_npu_time_to_first_token_seconds",
            "From the request to the first piece of the reply.",
            buckets=_FIRST_BUCKETS,
            registry=registry,
        )
        self.picture_seconds = Histogram(
            "mllm_npu_picture_seconds",
            "From the piece of the reply before a picture to the picture.",
            buckets=_LONG_BUCKETS,
            registry=registry,
        )
        self.reply_seconds = Histogram(
            "mllm_npu_reply_seconds",
            "From the request to the end of the reply.",
            buckets=_LONG_BUCKETS,
            registry=registry,
        )
        self._recent: deque[tuple[float, int]] = deque()
        self._lock = threading.Lock()
        self._gauge("mllm_npu_queued", "Requests that wait.", lambda: stats().queued)
        self._gauge(
            "mllm_npu_running", "Requests that are answered together now.", lambda: stats().running
        )
        self._gauge(
            "mllm_npu_tokens_per_second",
            f"Tokens of replies per second, over the last {SPEED_SECONDS:g} seconds.",
            self.tokens_per_second,
        )

    def add_reply(self, *, num_prompt_tokens: int, num_new_tokens: int, seconds: float) -> None:
        """Count one complete reply."""
        self.prompt_tokens.inc(num_prompt_tokens)
        self.new_tokens.inc(num_new_tokens)
        self.reply_seconds.observe(seconds)

    def add_piece(self, num_tokens: int = 1) -> None:
        """Count tokens towards the speed."""
        with self._lock:
            self._recent.append((self.clock(), num_tokens))
            self._forget()

    def tokens_per_second(self) -> float:
        """Tokens of all replies per second, lately."""
        with self._lock:
            self._forget()
            return sum(tokens for _, tokens in self._recent) / SPEED_SECONDS

    def page(self) -> bytes:
        """All figures in Prometheus' text form."""
        return generate_latest(self.registry)

    def _forget(self) -> None:
        while self._recent and self._recent[0][0] < self.clock() - SPEED_SECONDS:
            self._recent.popleft()

    def _gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        Gauge(name, text, registry=self.registry).set_function(value)
