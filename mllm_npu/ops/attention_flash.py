"""Attend in packs by the flash kernels of a CUDA device: the library's, else torch's own.

Shape letters: T queries of a pack, U keys of a pack, H query heads, J key heads, E head width, S
sequences.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mllm_npu.device.platform import load_extension
from mllm_npu.ops import pretended_kernels
from mllm_npu.ops.attention_options import BandOptions, PackOptions, ScoreOptions
from mllm_npu.ops.autocast import compute_dtype, in_compute_dtype
from mllm_npu.ops.causal_part import Attended, CausalPart, Gradients
from mllm_npu.ops.packing import Packing, PairPacking
from mllm_npu.ops.ways import pretends

CUDA = "cuda"
"""torch's type of the device."""
_WIDEST = 256
_DTYPES = (torch.float16, torch.bfloat16)
_LEAST_CAPABILITY = (8, 0)


def library() -> Callable[..., Tensor] | None:
    """The function of the flash_attn package, where it loads and knows windows (from 2.3 on)."""
    return pretended_kernels.flash_attention if pretends(CUDA) else _library()


@functools.cache
def _library() -> Callable[..., Tensor] | None:
    return _find("flash_attn", "flash_attn_varlen_func", {"window_size"})


@functools.cache
def torch_kernel() -> Callable[..., Tensor] | None:
    """The function of torch itself, where this build has it and it knows windows (from 2.11 on)."""
    if not torch.backends.cuda.is_flash_attention_available():
        return None
    return _find("torch.nn.attention.varlen", "varlen_attn", {"window_size"})


def suits_library(
    q_THE: Tensor,
    k_UJE: Tensor,
    v_UJE: Tensor,
    packing: Packing | PairPacking,
    options: ScoreOptions,
) -> bool:
    """Whether the library's kernel is there and takes these."""
    is_plain = options.softcap is None and 0 <= options.dropout < 1
    return is_plain and _takes(q_THE, k_UJE, v_UJE) and library() is not None


def suits_torch(
    q_THE: Tensor, k_TJE: Tensor, v_TJE: Tensor, packing: Packing, options: ScoreOptions
) -> bool:
    """Whether torch's kernel is there and takes these: it cannot drop."""
    is_plain = options.softcap is None and not options.dropout
    return is_plain and _takes(q_THE, k_TJE, v_TJE) and torch_kernel() is not None


def attend_pack(
    q_THE: Tensor, k_TJE: Tensor, v_TJE: Tensor, packing: Packing, options: PackOptions
) -> Tensor:
    """Attend causally inside each sequence of a pack, without laying it out in rows."""
    return attend_varlen(q_THE, k_TJE, v_TJE, packing.pairs, options.band(packing.longest))


def attend_varlen(
    q_THE: Tensor, k_UJE: Tensor, v_UJE: Tensor, packing: PairPacking, options: BandOptions
) -> Tensor:
    """Attend in pairs of packed sequences, each query in a band of keys aligned at the end.

    Both kernels align it so, and take -1 for no limit.
    """
    q, k, v = (in_compute_dtype(part) for part in (q_THE, k_UJE, v_UJE))
    queries, keys, scale = packing.queries, packing.keys, options.scale
    pack = (queries.bounds, keys.bounds, queries.longest, keys.longest)
    left, right = (-1 if side is None else side for side in (options.left, options.right))
    given: dict[str, Any] = {"window_size": (left, right)}
    function = library()
    if function is not None:
        given |= {"dropout_p": options.dropout, "causal": right == 0}
        if pretends(CUDA):  # bounds without values tell no lengths
            given["lengths"] = (queries.lengths, keys.lengths)
        return function(q, k, v, *pack, softmax_scale=scale, **given)
    kernel: Any = torch_kernel()
    if _knows(kernel, "enable_gqa"):  # where it does not, it shares key heads without being asked
        given["enable_gqa"] = q.shape[1] != k.shape[1]
    return kernel(q, k, v, *pack, scale=scale, **given)


def _forward_part(
    q_THE: Tensor, k_TJE: Tensor, v_TJE: Tensor, packing: Packing, scale: float
) -> tuple[Tensor, Tensor]:
    """Attend causally; also the logarithm of each query's sum, float32 [T, H]."""
    bounds, longest = packing.bounds, packing.longest
    pack = (bounds, bounds, longest, longest, 0.0, True, False)  # no dropout, causal, no debugging
    forward = torch.ops.aten._flash_attention_forward
    out, lse_HT, *_ = forward(q_THE, k_TJE, v_TJE, *pack, scale=scale)
    return out, lse_HT.transpose(0, 1)


def _backward_part(grad_THE: Tensor, whole: Attended, packing: Packing, scale: float) -> Gradients:
    """Gradients through this part of an attention whose result and sums are of the whole."""
    bounds, longest, q_THE = packing.bounds, packing.longest, whole.q_THE
    pack = (bounds, bounds, longest, longest, 0.0, True)
    # Nothing is dropped, so the state of the random numbers is asked for and not read.
    state = torch.zeros(2, dtype=torch.uint64, device=q_THE.device)
    inputs = (grad_THE.to(q_THE.dtype).contiguous(), q_THE, whole.k_TJE, whole.v_TJE)
    kept = (whole.out_THE, whole.lse_TH.transpose(0, 1).contiguous())
    backward = torch.ops.aten._flash_attention_backward
    return backward(*inputs, *kept, *pack, state, q_THE.new_empty(0), scale=scale)


def is_able(device: torch.device) -> bool:
    """Whether the device is new enough for flash kernels."""
    return pretends(CUDA) or _is_able(device)


@functools.cache
def _is_able(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= _LEAST_CAPABILITY


def _find(module: str, name: str, parameters: set[str]) -> Callable[..., Tensor] | None:
    if load_extension(module) is not None:
        return None
    function = getattr(importlib.import_module(module), name, None)
    if function is None or not all(_knows(function, parameter) for parameter in parameters):
        return None
    return function


@functools.cache
def _knows(function: Callable[..., Tensor], parameter: str) -> bool:
    return parameter in inspect.signature(function).parameters


def _takes(q: Tensor, k: Tensor, v: Tensor) -> bool:
    dtypes = {compute_dtype(part) for part in (q, k, v)}
    width = q.shape[-1]
    return (
        len(dtypes) == 1
        and dtypes <= set(_DTYPES)
        and width % 8 == 0
        and width <= _WIDEST
        and width == k.shape[-1] == v.shape[-1]
        and q.shape[1] % k.shape[1] == 0
        and q.numel() > 0
        and k.numel() > 0
        and is_able(q.device)
    )


PART = CausalPart(
    name="flash torch",
    device=CUDA,
    forward=_forward_part,
    backward=_backward_part,
    suits=suits_torch,
)
"""Causal attention as a part of a larger one."""
