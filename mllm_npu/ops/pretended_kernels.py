"""Stand in for the fused kernels of devices that are not there: shapes and memory, no values.

A dry run computes with fake tensors in the ways of the device it plans for (see `ways.pretend`).
Results, and what is kept for the backward pass, are those of the real kernels; values do not exist.
The names are the kernels' own, so that this module can take the place of their package.

Shape letters: T queries of a pack, U keys, H query heads, J key heads, E head width, D width.

Source: schemas of torch_npu's fused operators and of flash_attn; what their backward passes keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

_LIBRARY: Any = torch.library.Library("mllm_npu", "FRAGMENT")  # type: ignore[no-untyped-call]
_FLASH, _NPU = 1, 8
"""How often the kernels repeat each statistic of a query; one keeps two statistics, one a single.
"""
_CAUSAL, _BAND = 3, 4


def npu_fusion_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    head_num: int,
    input_layout: str,
    *,
    scale: float = 1.0,
    keep_prob: float = 1.0,
    actual_seq_qlen: Sequence[int] | None = None,
    actual_seq_kvlen: Sequence[int] | None = None,
    sparse_mode: int = 0,
    pre_tockens: int = 2**31 - 1,
    next_tockens: int = 2**31 - 1,
    atten_mask: Tensor | None = None,
) -> tuple[Any, ...]:
    """Result and statistics; see `attention_npu` for the arguments."""
    queries, keys = _lengths(query, key, actual_seq_qlen, actual_seq_kvlen)
    left, right = pre_tockens, next_tockens
    if sparse_mode == _CAUSAL:
        left, right = 2**31 - 1, 0
    elif sparse_mode != _BAND:
        left, right = 2**31 - 1, 2**31 - 1
    pairs = _count_pairs(queries, keys, left, right)
    out, most, total = torch.ops.mllm_npu.fused_attention(query, key, value, pairs, _NPU)
    return out, most, total, query.new_empty(0), 0, 0, 0


def npu_fusion_attention_grad(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dy: Tensor,
    head_num: int,
    input_layout: str,
    *,
    softmax_max: Tensor,
    softmax_sum: Tensor,
    attention_in: Tensor,
    actual_seq_qlen: Sequence[int] | None = None,
    actual_seq_kvlen: Sequence[int] | None = None,
    **settings: Any,
) -> tuple[Any, ...]:
    """Gradients of queries, keys and values; causal."""
    queries, keys = _lengths(query, key, actual_seq_qlen, actual_seq_kvlen)
    pairs = _count_pairs(queries, keys, 2**31 - 1, 0)
    kept = (attention_in, softmax_max, softmax_sum)
    grads = torch.ops.mllm_npu.fused_attention_backward(dy, query, key, value, *kept, pairs)
    return (*grads, query.new_empty(0), query.new_empty(0))


def flash_attention(
    q_THE: Tensor,
    k_UJE: Tensor,
    v_UJE: Tensor,
    bounds_q: Tensor,
    bounds_k: Tensor,
    longest_q: int,
    longest_k: int,
    *,
    softmax_scale: float | None = None,
    dropout_p: float = 0.0,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    lengths: tuple[Sequence[int], Sequence[int]] | None = None,
) -> Tensor:
    """The function of the flash_attn package for packs; keeps one statistic of each query."""
    queries, keys = lengths or ((q_THE.shape[0],), (k_UJE.shape[0],))
    left, right = (2**31 - 1 if side < 0 else side for side in window_size)
    pairs = _count_pairs(queries, keys, left, right)
    return torch.ops.mllm_npu.fused_attention(q_THE, k_UJE, v_UJE, pairs, _FLASH)[0]


def npu_rms_norm(x: Tensor, gamma: Tensor, epsilon: float = 1e-6) -> tuple[Tensor, Tensor]:
    """The norm, and the factor of each row in float32."""
    return torch.ops.mllm_npu.fused_rms_norm(x, gamma)


def npu_rotary_mul(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turned queries or keys."""
    return torch.ops.mllm_npu.fused_rotary(x, cos, sin)


def npu_swiglu(x: Tensor, dim: int = -1) -> Tensor:
    """One half gated by the other."""
    return torch.ops.mllm_npu.fused_swiglu(x)


def npu_gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    """Gaussian error linear unit."""
    return torch.ops.mllm_npu.fused_gelu(x)


def attention_flops(query: Sequence[int], value: Sequence[int], pairs: float) -> float:
    """Of the forward pass: two products for each pair of query and key that see each other.

    Args:
        query: shape, heads before the last place.
        value: shape.
        pairs: of query and key, of one head.
    """
    heads = query[-3] if len(query) == 4 else query[-2]
    return 2.0 * pairs * heads * (query[-1] + value[-1])


def _lengths(
    query: Tensor, key: Tensor, ends_q: Sequence[int] | None, ends_k: Sequence[int] | None
) -> tuple[list[int], list[int]]:
    """Of each row or sequence."""
    if ends_q is None or ends_k is None:
        rows = query.shape[0]
        return [query.shape[2]] * rows, [key.shape[2]] * rows
    return _differences(ends_q), _differences(ends_k)


def _differences(ends: Sequence[int]) -> list[int]:
    return [after - before for before, after in pairwise((0, *ends))]


def _count_pairs(queries: Sequence[int], keys: Sequence[int], left: int, right: int) -> float:
    """Pairs of a query and a key it sees, in a band aligned at the end."""
    total = 0.0
    for num_queries, num_keys in zip(queries, keys, strict=True):
        shift = num_keys - num_queries
        if left >= num_keys and right >= num_keys:
            total += num_queries * num_keys
        elif left >= num_keys and right == 0 and shift >= 0:
            total += num_queries * shift + num_queries * (num_queries + 1) / 2
        else:
            total += sum(
                max(0, min(num_keys, q + shift + right + 1) - max(0, q + shift - left))
                for q in range(num_queries)
            )
    return total


def _attend(
    query: Tensor, key: Tensor, value: Tensor, pairs: float, repeats: int
) -> tuple[Tensor, Tensor, Tensor]:
    out = query.new_empty(*query.shape[:-1], value.shape[-1])
    statistic = (*query.shape[:-1], repeats)
    most = torch.empty(statistic, dtype=torch.float32, device=query.device)
    # Flash kernels keep one number, the logarithm of the sum.
    total = torch.empty_like(most) if repeats == _NPU else most.new_empty(0)
    return out, most, total


def _attend_back(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    most: Tensor,
    total: Tensor,
    pairs: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return _like(query), _like(key), _like(value)


def _like(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)


def _normalise(x: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    factors = torch.empty((*x.shape[:-1], 1), dtype=torch.float32, device=x.device)
    return _like(x), factors


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, pairs: float, repeats: int) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            out, most, total = torch.ops.mllm_npu.fused_attention(q, k, v, pairs, repeats)
        ctx.save_for_backward(q, k, v, out, most, total)
        ctx.pairs = pairs
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(most, total)
        return out, most, total

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> Any:
        backward = torch.ops.mllm_npu.fused_attention_backward
        return *backward(grad, *ctx.saved_tensors, ctx.pairs), None, None


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            normed, factors = torch.ops.mllm_npu.fused_rms_norm(x, gamma)
        ctx.save_for_backward(x, gamma, factors)
        ctx.mark_non_differentiable(factors)
        ctx.set_materialize_grads(False)
        return normed, factors

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> Any:
        return torch.ops.mllm_npu.fused_rms_norm_backward(grad, *ctx.saved_tensors)


class _Rotary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Any:
        ctx.save_for_backward(x, cos, sin)
        with torch._C._AutoDispatchBelowAutograd():
            return torch.ops.mllm_npu.fused_rotary(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, cos, sin = ctx.saved_tensors
        return torch.ops.mllm_npu.fused_rotary_backward(grad, x, cos, sin)[0], None, None


class _OfOne(torch.autograd.Function):
    """What keeps its one input."""

    name: str

    @classmethod
    def forward(cls, ctx: Any, x: Tensor) -> Any:
        ctx.save_for_backward(x)
        with torch._C._AutoDispatchBelowAutograd():
            return getattr(torch.ops.mllm_npu, cls.name)(x)

    @classmethod
    def backward(cls, ctx: Any, grad: Tensor) -> Any:
        return getattr(torch.ops.mllm_npu, f"{cls.name}_backward")(grad, *ctx.saved_tensors)


class _SwiGLU(_OfOne):
    name = "fused_swiglu"


class _GELU(_OfOne):
    name = "fused_gelu"


def _define(schema: str, without_values: Any, function: Any = None) -> None:
    _LIBRARY.define(schema)
    name = schema.partition("(")[0]
    _LIBRARY.impl(name, without_values, "Meta")
    if function is not None:
        _LIBRARY.impl(name, function, "Autograd")


_define(
    "fused_attention(Tensor q, Tensor k, Tensor v, float pairs, int repeats) "
    "-> (Tensor, Tensor, Tensor)",
    _attend,
    _Attention.apply,
)
_define(
    "fused_attention_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor out, Tensor most, "
    "Tensor total, float pairs) -> (Tensor, Tensor, Tensor)",
    _attend_back,
)
_define("fused_rms_norm(Tensor x, Tensor gamma) -> (Tensor, Tensor)", _normalise, _Norm.apply)
_define(
    "fused_rms_norm_backward(Tensor grad, Tensor x, Tensor gamma, Tensor factors) "
    "-> (Tensor, Tensor)",
    lambda grad, x, gamma, factors: (_like(x), _like(gamma)),
)
_define(
    "fused_rotary(Tensor x, Tensor cos, Tensor sin) -> Tensor",
    lambda x, cos, sin: _like(x),
    _Rotary.apply,
)
_define(
    "fused_rotary_backward(Tensor grad, Tensor x, Tensor cos, Tensor sin) "
    "-> (Tensor, Tensor, Tensor)",
    lambda grad, x, cos, sin: (_like(x), _like(cos), _like(sin)),
)
_define(
    "fused_swiglu(Tensor x) -> Tensor",
    lambda x: x.new_empty(*x.shape[:-1], x.shape[-1] // 2),
    _SwiGLU.apply,
)
_define("fused_swiglu_backward(Tensor grad, Tensor x) -> Tensor", lambda grad, x: _like(x))
_define("fused_gelu(Tensor x) -> Tensor", _like, _GELU.apply)
_define("fused_gelu_backward(Tensor grad, Tensor x) -> Tensor", lambda grad, x: _like(x))
