"""Attend in a pack by right-padded rows, grouped by length: the way of every device.

A causal row needs no mask for padding on its right, so no mask of the size of the pack exists
anywhere.

Shape letters: T packed tokens, H query heads, J key heads, E head width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mllm_npu.ops.attention_options import PackOptions
from mllm_npu.ops.autocast import in_compute_dtype
from mllm_npu.ops.dense_attention import attend, band_mask
from mllm_npu.ops.packing import Packing, to_rows, to_tokens


def attend_in_rows(
    q_THE: Tensor, k_TJE: Tensor, v_TJE: Tensor, packing: Packing, options: PackOptions
) -> Tensor:
    """Gather the sequences into rows, attend in each group, gather the tokens back.

    Args:
        q_THE: queries.
        k_TJE: keys.
        v_TJE: values; their width may differ from E.
        packing: the pack.
        options: what a token sees, and how.

    Returns:
        float [T, H, E of the values].
    """
    sizes = [group.num_sequences * group.length for group in packing.groups]
    # Narrowed before they are copied, not by the kernel afterwards.
    parts = (in_compute_dtype(part) for part in (q_THE, k_TJE, v_TJE))
    rows = (torch.split(to_rows(part, packing), sizes) for part in parts)
    outputs = []
    for group, *own in zip(packing.groups, *rows, strict=True):
        shape = (group.num_sequences, group.length)
        q, k, v = (part.view(*shape, *part.shape[1:]).transpose(1, 2) for part in own)
        window = options.limit(group.length)
        mask = None if window is None else band_mask(group.length, window, q.device)
        out = attend(
            *(q, k, v),
            mask=mask,
            causal=mask is None,
            scale=options.scale,
            dropout=options.dropout,
            softcap=options.softcap,
        )
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    return to_tokens(outputs[0] if len(outputs) == 1 else torch.cat(outputs), packing)
