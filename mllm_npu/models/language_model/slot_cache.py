"""Keys and values of all layers in slots of a fixed size, one request each.

Nothing is allocated while requests come and go, and shapes do not depend on who is there.

Shape letters: N slots, J key heads, M places of a slot, E head width, T new tokens of all requests,
D language width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mllm_npu.device.transfer import to_device
from mllm_npu.errors import RequestError
from mllm_npu.models.language_model.slot_layout import SlotLayout
from mllm_npu.models.language_model.slots import Slots, SlotStates, Span

_GRAIN = 64
"""Places are added by multiples of this."""


class SlotCache(Slots):
    """The memory of a language model with packed attention.

    The tensors of a layer are made when it first writes, because only then its sizes are known.

    Args:
        run: embeddings [T, D] and their layout -> last hidden states [T, D]; its attention calls
            the layout.
        num_slots: N.
        max_tokens: most places of a slot.
        first_tokens: places a slot has before it grows; None gives it all of them at once.

    Attributes:
        num_places: M.
    """

    can_copy = True

    def __init__(
        self,
        *,
        run: Callable[[Tensor, SlotLayout], Tensor],
        num_slots: int,
        max_tokens: int,
        first_tokens: int | None = None,
    ) -> None:
        self.num_slots, self.max_tokens = num_slots, max_tokens
        self._run = run
        self.num_places = max_tokens if first_tokens is None else 0
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}
        if first_tokens is not None:
            self._make_room(first_tokens)

    @property
    def num_bytes(self) -> int:
        """Memory of all layers."""
        both = (part for layer in self._layers.values() for part in layer)
        return sum(part.numel() * part.element_size() for part in both)

    def advance(self, embeds_TD: Tensor, spans: Sequence[Span]) -> Tensor:
        """See `Slots`.

        Raises:
            RequestError: a slot that is not there, or more tokens than fit.
        """
        longest, last = max(span.end for span in spans), max(span.slot for span in spans)
        if longest > self.max_tokens or last >= self.num_slots:
            raise RequestError(
                f"{longest} tokens in slot {last} were asked for, there are {self.num_slots} slots "
                f"of {self.max_tokens} tokens. Shorten the request, or make more room."
            )
        self._make_room(longest)
        return self._run(embeds_TD, SlotLayout(cache=self, spans=spans, device=embeds_TD.device))

    def place_index(self, spans: Sequence[Span], num_heads: int, device: torch.device) -> Tensor:
        """Row of each new token and head in the tensors of a layer, int64 [J * T]."""
        places = [
            torch.arange(span.start, span.end, device="cpu")
            + span.slot * num_heads * self.num_places
            for span in spans
        ]
        heads = torch.arange(num_heads, device="cpu")[:, None] * self.num_places
        return to_device((torch.cat(places)[None] + heads).flatten(), device)

    def store(self, layer: int, k_JTE: Tensor, v_JTE: Tensor, index: Tensor) -> None:
        """Write new keys and values of a layer at the rows ``place_index`` gave."""
        if layer not in self._layers:
            self._layers[layer] = (self._allocate(k_JTE), self._allocate(v_JTE))
        for whole_NJME, new_JTE in zip(self._layers[layer], (k_JTE, v_JTE), strict=True):
            rows = new_JTE.reshape(-1, new_JTE.shape[2])
            whole_NJME.view(-1, rows.shape[1]).index_copy_(0, index, rows)

    def seen(self, layer: int, first: int, end: int, length: int) -> tuple[Tensor, Tensor]:
        """Keys and values of some slots up to a length, views [end - first, J, length, E]."""
        keys_NJME, values_NJME = self._layers[layer]
        return keys_NJME[first:end, :, :length], values_NJME[first:end, :, :length]

    def move(self, source: int, target: int, length: int) -> None:
        """See `Slots`."""
        for layer in self._layers.values():
            for part_NJME in layer:
                part_NJME[target, :, :length] = part_NJME[source, :, :length]

    def read(self, slot: int, length: int) -> SlotStates:
        """See `Slots`."""
        layers = (self._layers[number] for number in sorted(self._layers))
        return tuple(part_NJME[slot, :, :length].clone() for layer in layers for part_NJME in layer)

    def write(self, slot: int, states: SlotStates, length: int) -> None:
        """See `Slots`."""
        self._make_room(length)
        parts = (part for number in sorted(self._layers) for part in self._layers[number])
        for whole_NJME, part_JLE in zip(parts, states, strict=True):
            whole_NJME[slot, :, :length] = part_JLE[:, :length]

    def _allocate(self, like_JTE: Tensor) -> Tensor:
        # Zeros, because what is masked is still multiplied, and rubbish may be infinite.
        num_heads, _, width = like_JTE.shape
        return like_JTE.new_zeros(self.num_slots, num_heads, self.num_places, width)

    def _make_room(self, num_tokens: int) -> None:
        if num_tokens <= self.num_places:
            return
        wanted = -(-max(num_tokens, self.num_places * 3 // 2) // _GRAIN) * _GRAIN
        before, self.num_places = self.num_places, min(wanted, self.max_tokens)
        for number, layer in self._layers.items():
            larger = tuple(self._allocate(part_NJME[0]) for part_NJME in layer)
            for new_NJME, old_NJME in zip(larger, layer, strict=True):
                new_NJME[:, :, :before] = old_NJME
            self._layers[number] = (larger[0], larger[1])
