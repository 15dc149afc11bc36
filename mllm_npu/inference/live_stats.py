"""What an engine has done so far and does now, in numbers."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

_LAST = 512
"""Steps and requests that are remembered one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """An engine at one moment.

    Args:
        queued: requests that wait for a slot.
        running: requests in slots.
        drawing: pictures that wait or are drawn.
        free_slots: slots nobody is in.
        finished: requests that were answered.
        cancelled: requests that were given up.
        failed: requests that ended with an error.
        prompt_tokens: tokens of prompts that were computed, not reused.
        new_tokens: tokens that were chosen.
        pictures: pictures that were drawn.
        steps: forwards.
        batch_sizes: requests of each of the last steps.
        first_token_seconds: from each of the last requests to its first token, waiting included.
        picture_seconds: of each of the last pictures, from its features to the picture.
        cached_prefixes: prompts that are kept.
        prefix_hits: prompts that began as one that was kept.
        reused_tokens: tokens of prompts that were not computed again.
        cached_tiles: tiles that are kept.
        tile_hits: tiles that were not encoded again.
        error: what stopped the engine; None while it works.
    """

    queued: int
    running: int
    drawing: int
    free_slots: int
    finished: int
    cancelled: int
    failed: int
    prompt_tokens: int
    new_tokens: int
    pictures: int
    steps: int
    batch_sizes: tuple[int, ...]
    first_token_seconds: tuple[float, ...]
    picture_seconds: tuple[float, ...]
    cached_prefixes: int
    prefix_hits: int
    reused_tokens: int
    cached_tiles: int
    tile_hits: int
    error: str | None = None


def _recent() -> deque[float]:
    return deque(maxlen=_LAST)


@dataclass(slots=True, kw_only=True)
class Meter:
    """Counts while an engine works; one thread writes.

    Attributes:
        counts: finished, cancelled, failed, pictures, steps.
        batch_sizes: of the last steps.
        first_token_seconds: of the last requests.
        picture_seconds: of the last pictures.
    """

    counts: Counter[str] = field(default_factory=Counter)
    batch_sizes: deque[float] = field(default_factory=_recent)
    first_token_seconds: deque[float] = field(default_factory=_recent)
    picture_seconds: deque[float] = field(default_factory=_recent)

    def count_step(self, num_requests: int) -> None:
        """A forward with so many requests."""
        self.counts["steps"] += 1
        self.batch_sizes.append(num_requests)
