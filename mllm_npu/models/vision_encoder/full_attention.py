"""Give vision encoders of Hugging Face our attention: every token of a tile sees all of them.

Shape letters: B tiles, H query heads, J key heads, K tokens of a tile, E head width.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface

from mllm_npu.errors import ConfigError
from mllm_npu.ops.dense_attention import attend

ATTENTION_NAME = "mllm_npu_full"
"""What ``attn_implementation`` is set to."""


def attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend without a limit; the signature is transformers' own.

    Args:
        module: the layer that asks.
        query: [B, H, K, E].
        key: [B, J, K, E].
        value: [B, J, K, E].
        attention_mask: None, tiles have no padding.
        scaling: factor of the scores, default E ** -0.5.
        dropout: share of attention weights dropped.
        others: what a family adds; refused where it would change the result.

    Returns:
        float [B, K, H, E] and no weights.

    Raises:
        ConfigError: the family asks for attention this function does not know.
    """
    asked = {"attention_mask": attention_mask, **others}
    for name in ("attention_mask", "s_aux", "position_bias", "head_mask"):
        if asked.get(name) is not None:
            raise ConfigError(
                f"{type(module).__name__} asks for attention with {name!r}, which vision encoders "
                "cannot have here; choose another family."
            )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = attend(query, key, value, mask=None, causal=False, scale=scale, dropout=dropout)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION_NAME, attention_forward)
