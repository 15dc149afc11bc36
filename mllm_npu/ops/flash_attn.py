"""Stand in for the functions of flash-attn and xformers, on whatever device the tensors are.

Arguments, layouts and results are theirs (flash-attn from 2.1 on: a causal or banded query is
aligned at the last key). What would change the result and is not known here is refused.

Shape letters: B rows, Q queries, K keys, H query heads, J key heads, E head width, T packed
queries, U packed keys, N sequences.

Source: the interfaces of github.com/Dao-AILab/flash-attention and facebookresearch/xformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from mllm_npu.errors import RequestError
from mllm_npu.ops.varlen_attention import varlen_attention


class LowerTriangularMask:
    """Query i sees keys 0..i: what xformers' class of this name means as ``attn_bias``."""


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> Tensor:
    """Attend in dense rows.

    Args:
        q: [B, Q, H, E].
        k: [B, K, J, E]; H is a multiple of J.
        v: [B, K, J, E].
        dropout_p: share of attention weights dropped.
        softmax_scale: factor of the scores, default E ** -0.5.
        causal: the last query sees all keys, each one before it one key less.
        window_size: keys before and behind its own place that a query sees; -1 for all.
        softcap: only 0.
        alibi_slopes: only None.
        deterministic: only False.
        return_attn_probs: only False.

    Returns:
        [B, Q, H, E]; zeros where a query sees no key.

    Raises:
        RequestError: shapes that do not fit, or an option that is not known here.
    """
    _check_shapes(q, k, v, num_dims=4)
    num_rows, num_queries, num_keys = q.shape[0], q.shape[1], k.shape[1]
    out = flash_attn_varlen_func(
        q.flatten(0, 1),
        k.flatten(0, 1),
        v.flatten(0, 1),
        cu_seqlens_q=[num_queries * row for row in range(num_rows + 1)],
        cu_seqlens_k=[num_keys * row for row in range(num_rows + 1)],
        max_seqlen_q=num_queries,
        max_seqlen_k=num_keys,
        dropout_p=dropout_p,
        softmax_scale=softmax_scale,
        causal=causal,
        window_size=window_size,
        softcap=softcap,
        alibi_slopes=alibi_slopes,
        deterministic=deterministic,
        return_attn_probs=return_attn_probs,
    )
    return out.view(num_rows, num_queries, *out.shape[1:])


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor | Sequence[int],
    cu_seqlens_k: Tensor | Sequence[int],
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: Tensor | None = None,
) -> Tensor:
    """Attend in packed sequences.

    Args:
        q: [T, H, E].
        k: [U, J, E]; H is a multiple of J.
        v: [U, J, E].
        cu_seqlens_q: first query of each sequence, then T; N + 1 numbers. A list or a tensor of the
            host costs nothing; a tensor of a device is copied to the host, which waits for it.
        cu_seqlens_k: the same of the keys, then U.
        max_seqlen_q: at least the longest sequence of queries.
        max_seqlen_k: at least the longest sequence of keys.
        dropout_p: share of attention weights dropped.
        softmax_scale: factor of the scores, default E ** -0.5.
        causal: the last query of a sequence sees all its keys, each one before it one key less.
        window_size: keys before and behind its own place that a query sees; -1 for all.
        softcap: only 0.
        alibi_slopes: only None.
        deterministic: only False.
        return_attn_probs: only False.
        block_table: only None.

    Returns:
        [T, H, E]; zeros where a query sees no key.

    Raises:
        RequestError: shapes or numbers that do not fit, or an option that is not known here.
    """
    _refuse_options(
        softcap=softcap != 0,
        alibi_slopes=alibi_slopes is not None,
        deterministic=deterministic,
        return_attn_probs=return_attn_probs,
        block_table=block_table is not None,
    )
    _check_shapes(q, k, v, num_dims=3)
    left, right = _band(window_size, causal=causal)
    ends_q = _ends("cu_seqlens_q", cu_seqlens_q, q.shape[0], max_seqlen_q)
    ends_k = _ends("cu_seqlens_k", cu_seqlens_k, k.shape[0], max_seqlen_k)
    if len(ends_q) != len(ends_k):
        raise RequestError(
            f"cu_seqlens_q tells of {len(ends_q)} sequences and cu_seqlens_k of {len(ends_k)}. "
            "Give as many of both."
        )
    return varlen_attention(
        q,
        k,
        v,
        ends_q,
        ends_k,
        left=left,
        right=right,
        scale=q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale,
        dropout=_check_dropout(dropout_p),
    )


def memory_efficient_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_bias: Tensor | LowerTriangularMask | None = None,
    p: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """Attend in dense rows, as many key heads as query heads.

    Args:
        query: [B, Q, H, E], or [B, Q, E] for one head.
        key: [B, K, H, E].
        value: [B, K, H, E].
        attn_bias: added to the scores, float broadcastable to [B, H, Q, K], or a
            `LowerTriangularMask`.
        p: share of attention weights dropped.
        scale: factor of the scores, default E ** -0.5.

    Returns:
        As ``query``, with the values' width.

    Raises:
        RequestError: shapes that do not fit, or a bias of another kind.
    """
    if query.dim() == 3:
        q, k, v = (part[:, :, None] for part in (query, key, value))
        return memory_efficient_attention(q, k, v, attn_bias, p, scale)[:, :, 0]
    _check_shapes(query, key, value, num_dims=4)
    if query.shape[2] != key.shape[2]:
        raise RequestError(
            f"query has {query.shape[2]} heads and key {key.shape[2]}. Repeat the key heads, or "
            "use flash_attn_func."
        )
    if attn_bias is None:
        return flash_attn_func(query, key, value, p, scale)
    num_queries = query.shape[1]
    if isinstance(attn_bias, LowerTriangularMask):
        # Aligned at the first key, so keys behind the last query are seen by nobody.
        key, value = key[:, :num_queries], value[:, :num_queries]
        window = (-1, num_queries - key.shape[1])
        return flash_attn_func(query, key, value, p, scale, window_size=window)
    if not isinstance(attn_bias, Tensor) or not attn_bias.is_floating_point():
        raise RequestError(
            f"attn_bias is {_kind(attn_bias)}; give a float tensor that is added to the scores, a "
            "LowerTriangularMask, or None."
        )
    q, k, v = (part.transpose(1, 2) for part in (query, key, value))
    options: dict[str, Any] = {"dropout_p": _check_dropout(p), "scale": scale}
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_bias.to(q.dtype), **options)
    return out.transpose(1, 2)


def _refuse_options(**asked: bool) -> None:
    found = [name for name, is_asked in asked.items() if is_asked]
    if found:
        raise RequestError(
            f"Attention was asked for with {', '.join(found)}, which is not known here. Leave it "
            "out, or call the library itself on a device that has it."
        )


def _check_shapes(q: Tensor, k: Tensor, v: Tensor, *, num_dims: int) -> None:
    shapes = [tuple(part.shape) for part in (q, k, v)]
    fits = (
        all(len(shape) == num_dims for shape in shapes)
        and k.shape[:-1] == v.shape[:-1]
        and q.shape[-1] == k.shape[-1]
        and (num_dims == 3 or q.shape[0] == k.shape[0])
        and k.shape[-2] > 0
        and q.shape[-2] % k.shape[-2] == 0
    )
    if not fits:
        layout = "[tokens, heads, width]" if num_dims == 3 else "[rows, tokens, heads, width]"
        raise RequestError(
            f"Queries, keys and values of shapes {shapes} do not fit. Give {layout}, the heads of "
            "the queries a multiple of those of keys and values."
        )


def _band(window_size: tuple[int, int], *, causal: bool) -> tuple[int | None, int | None]:
    """Keys before and behind its own place that a query sees; None for all."""
    if len(window_size) != 2 or min(window_size) < -1:
        raise RequestError(
            f"window_size={tuple(window_size)} was asked for. Give the keys before and behind, -1 "
            "for all."
        )
    left, right = (None if side == -1 else int(side) for side in window_size)
    return left, 0 if causal else right


def _check_dropout(dropout: float) -> float:
    if not 0 <= dropout < 1:
        raise RequestError(f"Dropout of {dropout} was asked for. Give a share from 0 to below 1.")
    return dropout


def _ends(name: str, bounds: Tensor | Sequence[int], num_tokens: int, longest: int) -> list[int]:
    """Cumulative ends without the leading 0, on the host."""
    numbers = bounds.tolist() if isinstance(bounds, Tensor) else list(map(int, bounds))
    lengths = [end - start for start, end in pairwise(numbers)]
    if not numbers or numbers[0] != 0 or numbers[-1] != num_tokens or min(lengths, default=0) < 0:
        raise RequestError(
            f"{name}={numbers} does not describe {num_tokens} tokens. Give 0 and then the end of "
            "each sequence."
        )
    if max(lengths, default=0) > longest:
        raise RequestError(
            f"The longest sequence of {name} has {max(lengths)} tokens, and at most {longest} were "
            f"announced by {name.replace('cu_seqlens', 'max_seqlen')}."
        )
    return numbers[1:]


def _kind(value: object) -> str:
    return f"of {value.dtype}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
