"""Attend in packs by the flash kernels of a CUDA device: the library's, else torch's own.

Shape letters: T queries of a pack, U keys of a pack, H query heads, J key heads, E head width, S
sequences.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mllm_npu.device.platform import load_extension
from mllm_npu.device.transfer import to_device
from mllm_npu.ops.autocast import compute_dtype, in_compute_dtype
from mllm_npu.ops.causal_part import CausalPart
from mllm_npu.ops.packing import Packing

CUDA = "cuda"
"""torch's type of the device."""
_WIDEST = 256
_DTYPES = (torch.float16, torch.bfloat16)
_LEAST_CAPABILITY = (8, 0)


@functools.cache
def library() -> Callable[..., Tensor] | None:
    """The function of the flash_attn package, where it loads and knows windows (from 2.3 on)."""
    return _find("flash_attn", "flash_attn_varlen_func", {"window_size"})


@functools.cache
def torch_kernel() -> Callable[..., Tensor] | None:
    """The function of torch itself, where this build has it in the form used here."""
    if not torch.backends.cuda.is_flash_attention_available():
        return None
    return _find("torch.nn.attention.varlen", "varlen_attn", {"window_size", "enable_gqa"})


def suits_library_pack(
    q_THE: Tensor,
    k_TJE: Tensor,
    v_TJE: Tensor,
    packing: Packing,
    *,
    scale: float,
    dropout: float = 0.0,
    window: int | None = None,
    softcap: float | None = None,
) -> bool:
    """Whether the library's kernel is there and takes what `attend_pack` is given."""
    is_plain = softcap is None and 0 <= dropout < 1
    return is_plain and _takes(q_THE, k_TJE, v_TJE) and library() is not None


def suits_torch_pack(
    q_THE: Tensor,
    k_TJE: Tensor,
    v_TJE: Tensor,
    packing: Packing,
    *,
    scale: float,
    dropout: float = 0.0,
    window: int | None = None,
    softcap: float | None = None,
) -> bool:
    """Whether torch's kernel is there and takes what `attend_pack` is given: it cannot drop."""
    is_plain = softcap is None and not dropout
    return is_plain and _takes(q_THE, k_TJE, v_TJE) and torch_kernel() is not None


def attend_pack(
    q_THE: Tensor,
    k_TJE: Tensor,
    v_TJE: Tensor,
    packing: Packing,
    *,
    scale: float,
    dropout: float = 0.0,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Attend causally inside each sequence of a pack, without laying it out in rows."""
    left = None if window is None or window >= packing.longest else window - 1
    bounds, longest = packing.bounds, packing.longest
    options: dict[str, Any] = {"left": left, "right": 0, "scale": scale, "dropout": dropout}
    return _fused(q_THE, k_TJE, v_TJE, (bounds, bounds), (longest, longest), **options)


def suits_varlen(
    q_THE: Tensor,
    k_UJE: Tensor,
    v_UJE: Tensor,
    ends_q: Sequence[int],
    ends_k: Sequence[int],
    *,
    left: int | None,
    right: int | None,
    scale: float,
    dropout: float = 0.0,
) -> bool:
    """Whether the library's kernel is there and takes what `attend_varlen` is given."""
    return 0 <= dropout < 1 and _takes(q_THE, k_UJE, v_UJE) and library() is not None


def attend_varlen(
    q_THE: Tensor,
    k_UJE: Tensor,
    v_UJE: Tensor,
    ends_q: Sequence[int],
    ends_k: Sequence[int],
    *,
    left: int | None,
    right: int | None,
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """Attend in pairs of packed sequences, each query in a band of keys aligned at the end."""
    bounds = _bounds(ends_q, q_THE.device), _bounds(ends_k, q_THE.device)
    longest = _longest(ends_q), _longest(ends_k)
    options: dict[str, Any] = {"left": left, "right": right, "scale": scale, "dropout": dropout}
    return _fused(q_THE, k_UJE, v_UJE, bounds, longest, **options)


def _suits_part(q_THE: Tensor, k_TJE: Tensor, v_TJE: Tensor, packing: Packing) -> bool:
    """Whether torch's kernels are there and take what the part is given."""
    return _takes(q_THE, k_TJE, v_TJE) and torch_kernel() is not None


def _forward_part(
    q_THE: Tensor, k_TJE: Tensor, v_TJE: Tensor, packing: Packing, scale: float
) -> tuple[Tensor, Tensor]:
    """Attend causally; also the logarithm of each query's sum, float32 [T, H]."""
    bounds, longest = packing.bounds, packing.longest
    pack = (bounds, bounds, longest, longest, 0.0, True, False)  # no dropout, causal, no debugging
    forward = torch.ops.aten._flash_attention_forward
    out, lse_HT, *_ = forward(q_THE, k_TJE, v_TJE, *pack, scale=scale)
    return out, lse_HT.transpose(0, 1)


def _backward_part(
    grad_THE: Tensor,
    q_THE: Tensor,
    k_TJE: Tensor,
    v_TJE: Tensor,
    out_THE: Tensor,
    lse_TH: Tensor,
    packing: Packing,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients through this part of an attention whose result and sums are of the whole."""
    bounds, longest = packing.bounds, packing.longest
    pack = (bounds, bounds, longest, longest, 0.0, True)
    # Nothing is dropped, so the state of the random numbers is asked for and not read.
    state = torch.zeros(2, dtype=torch.uint64, device=q_THE.device)
    kept = (out_THE, lse_TH.transpose(0, 1).contiguous())
    backward = torch.ops.aten._flash_attention_backward
    grad = grad_THE.to(q_THE.dtype).contiguous()
    return backward(grad, q_THE, k_TJE, v_TJE, *kept, *pack, state, q_THE.new_empty(0), scale=scale)


@functools.cache
def is_able(device: torch.device) -> bool:
    """Whether the device is new enough for flash kernels."""
    return torch.cuda.get_device_capability(device) >= _LEAST_CAPABILITY


def _find(module: str, name: str, parameters: set[str]) -> Callable[..., Tensor] | None:
    if load_extension(module) is not None:
        return None
    function = getattr(importlib.import_module(module), name, None)
    if function is None or not parameters <= set(inspect.signature(function).parameters):
        return None
    return function


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


def _bounds(ends: Sequence[int], device: torch.device) -> Tensor:
    return to_device(torch.tensor((0, *ends), dtype=torch.int32, device="cpu"), device)


def _longest(ends: Sequence[int]) -> int:
    return max(end - start for start, end in zip((0, *ends), ends, strict=False))


def _fused(
    q_THE: Tensor,
    k_UJE: Tensor,
    v_UJE: Tensor,
    bounds: tuple[Tensor, Tensor],
    longest: tuple[int, int],
    *,
    left: int | None,
    right: int | None,
    scale: float,
    dropout: float,
) -> Tensor:
    """Both kernels align the band at the last query and key, and take -1 for no limit."""
    q, k, v = (in_compute_dtype(part) for part in (q_THE, k_UJE, v_UJE))
    window = (-1 if left is None else left, -1 if right is None else right)
    function = library()
    if function is not None:
        options: dict[str, Any] = {"dropout_p": dropout, "causal": right == 0}
        return function(
            q, k, v, *bounds, *longest, softmax_scale=scale, window_size=window, **options
        )
    shares = q.shape[1] != k.shape[1]
    kernel: Any = torch_kernel()
    return kernel(q, k, v, *bounds, *longest, scale=scale, window_size=window, enable_gqa=shares)


PART = CausalPart(
    name="flash torch",
    device=CUDA,
    forward=_forward_part,
    backward=_backward_part,
    suits=_suits_part,
)
"""Causal attention as a part of a larger one."""
