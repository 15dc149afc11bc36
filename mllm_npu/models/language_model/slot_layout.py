"""Attend in one step of many requests: those that write all together, pieces of prompts by slot.

The first spans that have one token each are rows of one dense call over the slots as they lie, with
a mask of their lengths; nothing of the cache is copied. Spans that begin and end alike, in slots
side by side, are one dense call too. Every other span attends in its own slot.

Shape letters: T new tokens, H query heads, J key heads, E head width, R slots of the dense call, G
query heads per key head, C tokens of a span, K places of a slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mllm_npu.device.transfer import to_device
from mllm_npu.models.language_model.slots import Span
from mllm_npu.ops.attention import attend

if TYPE_CHECKING:
    from mllm_npu.models.language_model.slot_cache import SlotCache

_GRAIN = 16
"""Dense calls look at multiples of this many places, so that few shapes occur."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionRule:
    """How a layer attends.

    Args:
        scale: factor of the scores.
        window: tokens a token sees, itself included; None: all before it.
        softcap: bound of the scores.
    """

    scale: float
    window: int | None = None
    softcap: float | None = None


@dataclass(kw_only=True, eq=False)
class SlotLayout:
    """Where the new tokens of a step are, made once for all layers.

    Args:
        cache: their memory.
        spans: the new tokens, end to end.
        device: where the step computes.
        receipts: gets the window of each layer that attends, where somebody asks.

    Attributes:
        positions_T: place of each token in its request, int64.
    """

    cache: SlotCache
    spans: Sequence[Span]
    device: torch.device
    receipts: list[int | None] | None = None
    positions_T: Tensor = field(init=False)

    def __post_init__(self) -> None:
        steps = [torch.arange(span.start, span.end, device="cpu") for span in self.spans]
        self.positions_T = to_device(torch.cat(steps), self.device)
        self._index: dict[int, Tensor] = {}
        self._masks: dict[tuple[int, int | None], Tensor | None] = {}
        self._is_even = _are_even(self.spans)
        self._rows = _Rows.of(self.spans, self.cache.num_places, self.device)
        self._num_together = self._rows.num_spans if self._rows is not None else 0

    def attend(
        self, layer: int, q_1HTE: Tensor, k_1JTE: Tensor, v_1JTE: Tensor, rule: AttentionRule
    ) -> Tensor:
        """Remember new keys and values, and attend, -> float [1, H, T, E of the values].

        Args:
            layer: number of the layer.
            q_1HTE: queries.
            k_1JTE: keys.
            v_1JTE: values.
            rule: of the layer.
        """
        if self.receipts is not None:
            self.receipts.append(rule.window)
        num_heads = k_1JTE.shape[1]
        if num_heads not in self._index:
            self._index[num_heads] = self.cache.place_index(self.spans, num_heads, self.device)
        self.cache.store(layer, k_1JTE[0], v_1JTE[0], self._index[num_heads])
        if self._is_even:
            return self._attend_even(layer, q_1HTE, rule)
        outputs: list[Tensor] = []
        if self._rows is not None:
            outputs.append(
                self._attend_rows(self._rows, layer, q_1HTE[:, :, : self._num_together], rule)
            )
        start = self._num_together
        for number in range(self._num_together, len(self.spans)):
            own = slice(start, start := start + self.spans[number].length)
            parts = (q_1HTE[:, :, own], k_1JTE[:, :, own], v_1JTE[:, :, own])
            outputs.append(self._attend_span(number, layer, *parts, rule))
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, 2)

    def _attend_rows(self, rows: _Rows, layer: int, q_1HTE: Tensor, rule: AttentionRule) -> Tensor:
        keys_RJKE, values_RJKE = self.cache.seen(layer, 0, rows.num_slots, rows.num_places)
        q_RHE = q_1HTE[0].transpose(0, 1)
        if rows.slots is not None:
            whole_RHE = q_RHE.new_zeros(rows.num_slots, *q_RHE.shape[1:])
            q_RHE = whole_RHE.index_copy(0, rows.slots, q_RHE)
        # Query heads of a key head become queries of it, so that no key is copied.
        grouped_RJGE = q_RHE.reshape(rows.num_slots, keys_RJKE.shape[1], -1, q_RHE.shape[2])
        key = (-1, rule.window)
        if key not in self._masks:
            self._masks[key] = rows.mask(rule.window)
        out_RJGE = attend(
            grouped_RJGE,
            keys_RJKE,
            values_RJKE,
            mask=self._masks[key],
            causal=False,
            scale=rule.scale,
            softcap=rule.softcap,
        )
        out_RHE = out_RJGE.reshape(rows.num_slots, -1, out_RJGE.shape[3])
        if rows.slots is not None:
            out_RHE = out_RHE.index_select(0, rows.slots)
        return out_RHE.transpose(0, 1)[None]

    def _attend_even(self, layer: int, q_1HTE: Tensor, rule: AttentionRule) -> Tensor:
        """All spans in one dense call; they differ in nothing but their slots."""
        first = self.spans[0]
        num = len(self.spans)
        q_HTE = q_1HTE[0]
        q_RHCE = q_HTE.view(len(q_HTE), num, first.length, -1).transpose(0, 1)
        keys_RJKE, values_RJKE = self.cache.seen(layer, first.slot, first.slot + num, first.end)
        window = rule.window if rule.window is not None and rule.window < first.end else None
        key = (0, window)
        if key not in self._masks:
            plain = window is None and first.start == 0
            self._masks[key] = None if plain else self._mask_span(first, window)
        mask = self._masks[key]
        out_RHCE = attend(
            q_RHCE,
            keys_RJKE,
            values_RJKE,
            mask=mask,
            causal=mask is None,
            scale=rule.scale,
            softcap=rule.softcap,
        )
        return out_RHCE.transpose(0, 1).flatten(1, 2)[None]

    def _attend_span(
        self,
        number: int,
        layer: int,
        q_1HCE: Tensor,
        k_1JCE: Tensor,
        v_1JCE: Tensor,
        rule: AttentionRule,
    ) -> Tensor:
        span = self.spans[number]
        window = rule.window if rule.window is not None and rule.window < span.end else None
        fresh = span.start == 0
        key = (number, window)
        if key not in self._masks:
            plain = window is None and not span.blocks and (fresh or span.length == 1)
            self._masks[key] = None if plain else self._mask_span(span, window)
        if not fresh:
            k_1JCE, v_1JCE = self.cache.seen(layer, span.slot, span.slot + 1, span.end)
        mask = self._masks[key]
        return attend(
            q_1HCE,
            k_1JCE,
            v_1JCE,
            mask=mask,
            causal=mask is None and fresh,
            scale=rule.scale,
            softcap=rule.softcap,
        )

    def _mask_span(self, span: Span, window: int | None) -> Tensor:
        """What the tokens of a span see of their slot, bool [1, 1, C, K]."""
        keys_K = torch.arange(span.end, device=self.device)
        places_C = torch.arange(span.start, span.end, device="cpu")
        reach_C = places_C.clone()
        for first, end in span.blocks:
            reach_C[first:end] = span.start + end - 1
        reach_C, places_C = to_device(reach_C, self.device), to_device(places_C, self.device)
        visible_CK = keys_K <= reach_C[:, None]
        if window is not None:
            visible_CK = visible_CK & (places_C[:, None] - keys_K < window)
        return visible_CK[None, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """The requests of a dense call.

    Args:
        num_spans: how many.
        num_slots: R; slots between them that are not asked see their first place and are thrown
            away.
        num_places: K.
        slots: slot of each, int64; None where they are the slots in order.
        lengths: tokens each slot holds, int64 [R].
        alike: all of them hold K.
    """

    num_spans: int
    num_slots: int
    num_places: int
    slots: Tensor | None
    lengths: Tensor
    alike: bool

    @classmethod
    def of(cls, spans: Sequence[Span], num_places: int, device: torch.device) -> _Rows | None:
        """The first spans of one token each; None where they are too few of the slots."""
        num = next((i for i, span in enumerate(spans) if span.length > 1), len(spans))
        held = {span.slot: span.end for span in spans[:num]}
        num_slots = max(held, default=0) + 1
        if num_slots > 2 * num:
            return None
        longest = max(held.values())
        alike = num == num_slots and set(held.values()) == {longest}
        lengths = torch.tensor([held.get(slot, 1) for slot in range(num_slots)], device="cpu")
        asked = torch.tensor([span.slot for span in spans[:num]], device="cpu")
        in_order = asked.tolist() == list(range(num_slots))
        return cls(
            num_spans=num,
            num_slots=num_slots,
            num_places=longest if alike else min(-(-longest // _GRAIN) * _GRAIN, num_places),
            slots=None if in_order else to_device(asked, device),
            lengths=to_device(lengths, device),
            alike=alike,
        )

    def mask(self, window: int | None) -> Tensor | None:
        """Bool [R, 1, 1, K]; None where every request sees all places."""
        if self.alike and (window is None or window >= self.num_places):
            return None
        keys_K = torch.arange(self.num_places, device=self.lengths.device)
        visible_RK = keys_K < self.lengths[:, None]
        if window is not None:
            visible_RK = visible_RK & (keys_K >= self.lengths[:, None] - window)
        return visible_RK[:, None, None]


def _are_even(spans: Sequence[Span]) -> bool:
    """Whether several pieces are of one place and length, without blocks, in slots side by side."""
    first = spans[0]
    return (
        len(spans) > 1
        and first.length > 1
        and all(
            span.slot == first.slot + number
            and (span.start, span.length) == (first.start, first.length)
            and not span.blocks
            for number, span in enumerate(spans)
        )
    )
