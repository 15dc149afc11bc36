"""Give Hugging Face decoders our attention: packed sequences, rows that extend a cache, or slots.

The function is registered with transformers' AttentionInterface. What it needs travels as one
keyword argument from the model's ``forward`` to every layer. No mask function is registered under
the same name on purpose: transformers then builds no mask at all, so nothing of the size of the
pack squared exists and no device is asked for positions.

Shape letters: B rows, H query heads, J key heads, Q new tokens, K cached and new tokens, E head
width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from torch import Tensor, nn
from transformers import AttentionInterface

from mllm_npu.errors import ConfigError
from mllm_npu.models.language_model.slot_layout import AttentionRule, SlotLayout
from mllm_npu.ops.attention import attend, packed_attention, visible_keys
from mllm_npu.ops.block_attention import BlockPacking, block_attention
from mllm_npu.ops.packing import Packing

ATTENTION_NAME = "mllm_npu_packed"
"""What ``attn_implementation`` is set to."""

LAYOUT_KEYWORD = "sequence_layout"
"""The keyword under which the layout travels through the layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLayout:
    """What the new tokens of an ``extend`` see of the cache.

    Args:
        query_positions: place of each new token in its own row, int64 [B, Q].
        reach: place of the last token each new token sees, its own or the end of its block, int64
            [B, Q].
        key_positions: the same for each place of the cache, NEVER_VISIBLE at padding, int64 [B, K].
        first: the cache was empty and no row is padded, so the rows are causal as they stand.
        sees_all: each row has one new token that sees the whole cache.
        masks: one mask per window, made once for all layers.
    """

    query_positions: Tensor
    reach: Tensor
    key_positions: Tensor
    first: bool
    sees_all: bool
    masks: dict[int | None, Tensor | None] = field(default_factory=dict)

    def mask(self, window: int | None) -> Tensor | None:
        """Bool [B, 1, Q, K], or None where the kernel's own rule says the same."""
        if window is not None and window >= self.key_positions.shape[1]:
            window = None
        if window not in self.masks:
            plain = window is None and (self.first or self.sees_all)
            self.masks[window] = None if plain else self._visible(window)
        return self.masks[window]

    def _visible(self, window: int | None) -> Tensor:
        visible = visible_keys(self.reach, self.key_positions, None)
        if window is None:
            return visible
        return visible & (
            self.query_positions[:, None, :, None] - self.key_positions[:, None, None, :] < window
        )


class _Options(TypedDict):
    scale: float
    dropout: float
    window: int | None
    softcap: float | None


def attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    sequence_layout: Packing | BlockPacking | CacheLayout | SlotLayout | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend as the layout says; the signature is transformers' own.

    Args:
        module: the layer that asks.
        query: [B, H, Q, E]; B is 1 for a pack.
        key: [B, J, K, E].
        value: [B, J, K, E].
        attention_mask: always None here, the layout says what is visible.
        scaling: factor of the scores, default E ** -0.5.
        dropout: share of attention weights dropped.
        sliding_window: tokens a token sees, itself included.
        softcap: bound of the scores.
        sequence_layout: the pack, the rows of an ``extend``, or the slots of a step.
        others: what a family adds; refused where it would change the result.

    Returns:
        float [B, Q, H, E] and no weights.

    Raises:
        ConfigError: the layout did not arrive, or the family asks for attention this function does
            not know.
    """
    if sequence_layout is None:
        raise ConfigError(
            f"{type(module).__name__} did not pass {LAYOUT_KEYWORD} on to its attention, so "
            "packed sequences would see each other; build the language model with "
            "attention=per_sequence."
        )
    for name in ("s_aux", "position_bias", "head_mask"):
        if others.get(name) is not None:
            raise ConfigError(
                f"{type(module).__name__} asks for attention with {name!r}, which packed "
                "attention does not know; build the language model with attention=per_sequence."
            )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if isinstance(sequence_layout, Packing | BlockPacking):
        parts = [part.transpose(1, 2)[0] for part in (query, key, value)]
        options = _Options(scale=scale, dropout=dropout, window=sliding_window, softcap=softcap)
        return _attend_in_pack(parts, sequence_layout, options)[None], None
    if isinstance(sequence_layout, SlotLayout):
        rule = AttentionRule(scale=scale, window=sliding_window, softcap=softcap)
        out = sequence_layout.attend(_number_of(module), query, key, value, rule)
        return out.transpose(1, 2).contiguous(), None
    mask = sequence_layout.mask(sliding_window)
    causal = mask is None and not sequence_layout.sees_all
    out = attend(
        query, key, value, mask=mask, causal=causal, scale=scale, dropout=dropout, softcap=softcap
    )
    return out.transpose(1, 2).contiguous(), None


def _attend_in_pack(
    parts: Sequence[Tensor], layout: Packing | BlockPacking, options: _Options
) -> Tensor:
    """Queries [T, H, E], keys and values [T, J, E] of this rank -> [T, H, E] of this rank."""
    packing = layout if isinstance(layout, Packing) else layout.packing
    if packing.receipts is not None:
        packing.receipts.append(options["window"])
    exchange = packing.exchange
    if exchange is None:
        return _attend(parts, layout, options)
    num_tokens = packing.sequence_ends[-1]
    whole = [
        exchange.to_heads(part, num_tokens, shared=number > 0) for number, part in enumerate(parts)
    ]
    return exchange.to_tokens(_attend(whole, layout, options))


def _attend(parts: Sequence[Tensor], layout: Packing | BlockPacking, options: _Options) -> Tensor:
    q, k, v = parts
    if isinstance(layout, Packing):
        return packed_attention(q, k, v, layout, **options)
    asked = {name: value for name, value in options.items() if name != "scale" and value}
    if asked:
        raise ConfigError(
            f"bidirectional_images=true was asked for with a language model whose attention has "
            f"{asked}, which cannot go together. Set these to 0 or null in its config, or "
            "bidirectional_images=false."
        )
    return block_attention(q, k, v, layout, scale=options["scale"])


def _number_of(layer: nn.Module) -> int:
    number = getattr(layer, "layer_idx", None)
    if number is None:
        raise ConfigError(
            f"{type(layer).__name__} does not know which layer it is, so its keys cannot be kept "
            "in slots; build the language model with attention=per_sequence."
        )
    return int(number)


AttentionInterface.register(ATTENTION_NAME, attention_forward)
