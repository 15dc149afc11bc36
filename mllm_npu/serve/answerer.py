"""What a server needs of whatever makes replies: put a question, follow it, call it off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from mllm_npu.inference.events import Event
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import Conversation


class Ticket(Protocol):
    """One request on its way; iterating waits for its next event, in one thread at a time.

    The last event is ``Finished``, unless the request was cancelled, which ends the iteration, or
    could not be answered, which raises ``RequestError``.
    """

    @property
    def position(self) -> int:
        """Requests in front of this one; 0 once its reply is being made."""
        ...

    def cancel(self) -> None:
        """End it soon and give back what it holds; from any thread, and again without effect."""
        ...

    def __iter__(self) -> Iterator[Event]:
        """Its events."""
        ...


class AnswererStats(Protocol):
    """How busy an answerer is."""

    @property
    def queued(self) -> int:
        """Requests that wait."""
        ...

    @property
    def running(self) -> int:
        """Requests whose replies are being made together."""
        ...

    @property
    def error(self) -> str | None:
        """What has stopped it for good; None while it works."""
        ...


class Answerer(Protocol):
    """Makes replies; every method may be called from any thread."""

    def submit(self, conversation: Conversation, options: GenerationOptions) -> Ticket:
        """Take a request in.

        Raises:
            RequestError: it cannot be answered as it was put; ``BusyError``: the queue is full.
        """
        ...

    def stats(self) -> AnswererStats:
        """How busy it is now."""
        ...

    def close(self, *, drain: bool = True) -> None:
        """Take nothing more and end; without ``drain`` what runs ends with an error."""
        ...
