"""What an engine asks of a language model's memory: one slot per request, all fed in one step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from mllm_npu.batch import Blocks

SlotStates = tuple[Tensor, ...]
"""What a slot holds of some first tokens; only who gave it knows its form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """New tokens of one request.

    Args:
        slot: of the request.
        start: tokens the slot holds of the request before these.
        length: new tokens, at least 1.
        blocks: runs of the new tokens that see all of themselves, counted from the first of these.
    """

    slot: int
    start: int
    length: int
    blocks: Blocks = ()

    @property
    def end(self) -> int:
        """Tokens the slot holds afterwards."""
        return self.start + self.length


class Slots(ABC):
    """The memory of several requests.

    Attributes:
        num_slots: requests it holds at once.
        max_tokens: longest request.
        can_copy: whether ``read`` and ``write`` are there.
    """

    num_slots: int
    max_tokens: int
    can_copy: bool

    @abstractmethod
    def advance(self, embeds_TD: Tensor, spans: Sequence[Span]) -> Tensor:
        """Take new tokens of some requests, each seeing its own slot alone.

        Args:
            embeds_TD: embeddings of the spans end to end.
            spans: at most one per slot; one that starts at 0 begins a new request.

        Returns:
            Last hidden states, float [T, D].
        """

    @abstractmethod
    def move(self, source: int, target: int, length: int) -> None:
        """Put a request of so many tokens into another slot, whose own is lost."""

    @abstractmethod
    def read(self, slot: int, length: int) -> SlotStates:
        """A copy of what a slot holds of its first tokens."""

    @abstractmethod
    def write(self, slot: int, states: SlotStates, length: int) -> None:
        """Let a slot begin with the first tokens of what ``read`` gave."""
