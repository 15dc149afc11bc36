"""Slots of a language model that has no packed attention: a cache per request, fed one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mllm_npu.errors import RequestError
from mllm_npu.models.language_model.slots import Slots, SlotStates, Span

if TYPE_CHECKING:
    from mllm_npu.models.interfaces import LanguageModel


class OwnCaches(Slots):
    """Works for every language model, and gains nothing from requests that come together.

    Args:
        language_model: gives and extends the caches.
        num_slots: requests at once.
        max_tokens: longest request.
    """

    can_copy = False

    def __init__(self, language_model: LanguageModel, *, num_slots: int, max_tokens: int) -> None:
        self.num_slots, self.max_tokens = num_slots, max_tokens
        self._language_model = language_model
        self._caches: list[Any] = [None] * num_slots

    def advance(self, embeds_TD: Tensor, spans: Sequence[Span]) -> Tensor:
        """See `Slots`."""
        hidden: list[Tensor] = []
        parts = torch.split(embeds_TD, [span.length for span in spans])
        for span, part_LD in zip(spans, parts, strict=True):
            if span.start == 0:
                self._caches[span.slot] = self._language_model.new_cache()
            blocks = [span.blocks] if span.blocks else ()
            cache = self._caches[span.slot]
            hidden.append(self._language_model.extend(part_LD[None], cache, blocks=blocks)[0])
        return torch.cat(hidden)

    def move(self, source: int, target: int, length: int) -> None:
        """See `Slots`."""
        self._caches[target], self._caches[source] = self._caches[source], None

    def read(self, slot: int, length: int) -> SlotStates:
        """Refuse: see ``can_copy``."""
        raise RequestError(
            f"The first {length} tokens of a request were to be kept, and this language model "
            "keeps its past in a form of its own. Ask `can_copy` before."
        )

    def write(self, slot: int, states: SlotStates, length: int) -> None:
        """Refuse: see ``can_copy``."""
        self.read(slot, length)
