"""What is being made for whom, and how it is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Running:
    """Replies that are being made; at most one for each session and area of the page."""

    def __init__(self) -> None:
        self._stops: dict[tuple[str, str], asyncio.Event] = {}

    def __len__(self) -> int:
        return len(self._stops)

    def is_busy(self, session: str, area: str) -> bool:
        """Whether something is being made there."""
        return (session, area) in self._stops

    @contextmanager
    def begin(self, session: str, area: str) -> Iterator[asyncio.Event | None]:
        """For as long as a reply is made.

        Gives what is set when it is to end; None where another one is being made there.

        Args:
            session: of the browser's page.
            area: of the page.
        """
        key = (session, area)
        if key in self._stops:
            yield None
            return
        stop = self._stops[key] = asyncio.Event()
        try:
            yield stop
        finally:
            del self._stops[key]

    def stop(self, session: str, area: str | None = None) -> None:
        """End what is made in an area of the page, or in all of them."""
        for (owner, place), stop in self._stops.items():
            if owner == session and area in (None, place):
                stop.set()
