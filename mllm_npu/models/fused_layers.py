"""Let layers of transformers compute through our operations, where these give the same numbers.

A layer keeps its weights, names and class, and gets another ``forward``. Whether it may is not read
from its name: a twin of it with small random weights must give, bit for bit, what our operation
gives on a CPU. A family with another formula (Gemma's norms, GLM's rotation) stays as it is.
"""

from __future__ import annotations

import copy
import functools
import types
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from mllm_npu.ops.gelu import GELU, gelu
from mllm_npu.ops.patch_embedding import patch_embedding
from mllm_npu.ops.rms_norm import rms_norm
from mllm_npu.ops.rotary import apply_rotary_pos_emb
from mllm_npu.ops.swiglu import swiglu

_EPSILONS = ("variance_epsilon", "eps")
"""What families call the number below the root of a norm."""
_GATED = ("gate_proj", "up_proj", "down_proj")
_ROTATION = "apply_rotary_pos_emb"
_DTYPES = (torch.float32, torch.bfloat16)
_WIDTH = 8
_TRIED: dict[tuple[type | str, ...], type[nn.Module] | None] = {}
"""What trying a class of layers has given."""


def fuse_layers(model: nn.Module) -> dict[str, int]:
    """Exchange the ``forward`` of every layer that one of our operations can stand for.

    Args:
        model: of transformers; changed in place. Its weights may be without memory.

    Returns:
        How many layers of each kind: rms_norm, swiglu, rotary, gelu, geglu, patch_embedding.
    """
    found: Counter[str] = Counter()
    layers = [layer for layer in model.modules() if type(layer) not in _TRIED.values()]
    for layer in layers:
        for kind, choose in _KINDS.items():
            fused = choose(layer)
            if fused is not None:
                layer.__class__ = fused
                found[kind] += 1
                break
    return dict(found)


class _RMSNorm(nn.Module):
    """``forward`` of a norm."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        return rms_norm(hidden_states, self.weight, _epsilon(self))  # type: ignore[arg-type]


class _GatedFeedForward(nn.Module):
    """``forward`` of a gated feed-forward."""

    gate_proj: nn.Module
    up_proj: nn.Module
    down_proj: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x)))


class _GELU(nn.Module):
    """``forward`` of an exact GELU."""

    def forward(self, x: Tensor) -> Tensor:
        return gelu(x)


class _GatedByGELU(nn.Module):
    """``forward`` of a layer of diffusers, whose own takes the tanh form on an NPU."""

    proj: nn.Module

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        value, gate = self.proj(hidden_states).chunk(2, -1)
        return value * gelu(gate)


class _PatchEmbedding(nn.Module):
    """``forward`` of a convolution whose windows do not overlap."""

    def forward(self, pixels_ICHW: Tensor) -> Tensor:
        return patch_embedding(pixels_ICHW, self.weight, self.bias)  # type: ignore[arg-type]


def _choose_norm(layer: nn.Module) -> type[nn.Module] | None:
    own = dict(layer.named_parameters(recurse=False))
    is_like = set(own) == {"weight"} and own["weight"].dim() == 1 and not layer._modules
    if not is_like or layer._buffers or _epsilon(layer) is None:
        return None
    fused = _with_forward(type(layer), _RMSNorm.forward)

    def differ(dtype: torch.dtype) -> bool:
        twin = copy.copy(layer)
        twin._parameters = {"weight": nn.Parameter(_random(_WIDTH, dtype=dtype))}
        return _gives_other(twin, fused, _random(2, 3, _WIDTH, dtype=dtype))

    return _tried((type(layer),), fused, differ)


def _choose_feed_forward(layer: nn.Module) -> type[nn.Module] | None:
    parts = layer._modules
    if not all(isinstance(parts.get(name), nn.Linear) for name in _GATED):
        return None
    fused = _with_forward(type(layer), _GatedFeedForward.forward)

    def differ(dtype: torch.dtype) -> bool:
        twin = copy.copy(layer)
        sizes = {"gate_proj": (4, _WIDTH), "up_proj": (4, _WIDTH), "down_proj": (_WIDTH, 4)}
        linear = {name: _random_linear(*size, dtype=dtype) for name, size in sizes.items()}
        twin._modules = {**parts, **linear}
        return _gives_other(twin, fused, _random(2, 3, 4, dtype=dtype))

    return _tried((type(layer), type(parts.get("act_fn"))), fused, differ)


def _choose_rotation(layer: nn.Module) -> type[nn.Module] | None:
    forward: Any = type(layer).forward
    if not isinstance(forward, types.FunctionType) or _ROTATION not in forward.__code__.co_names:
        return None
    rotate = forward.__globals__.get(_ROTATION)
    if not callable(rotate):
        return None

    def differ(dtype: torch.dtype) -> bool:
        query, key = (_random(2, heads, 5, _WIDTH, dtype=dtype) for heads in (4, 2))
        cos, sin = (_random(2, 5, _WIDTH, dtype=dtype) for _ in range(2))
        theirs, ours = rotate(query, key, cos, sin), apply_rotary_pos_emb(query, key, cos, sin)
        return not all(map(torch.equal, theirs, ours))

    # The same code, with our function under the name by which it calls theirs.
    names = {**forward.__globals__, _ROTATION: apply_rotary_pos_emb}
    changed = types.FunctionType(
        forward.__code__, names, forward.__name__, forward.__defaults__, forward.__closure__
    )
    changed.__kwdefaults__ = forward.__kwdefaults__
    functools.update_wrapper(changed, forward)
    return _tried((type(layer),), _with_forward(type(layer), changed), differ)


def _choose_gelu(layer: nn.Module) -> type[nn.Module] | None:
    kind = type(layer)
    if "GELU" not in kind.__name__ or kind is GELU or layer._modules or layer._parameters:
        return None
    fused = _with_forward(kind, _GELU.forward)

    def differ(dtype: torch.dtype) -> bool:
        return _gives_other(copy.copy(layer), fused, _random(64, dtype=dtype))

    return _tried((kind, str(getattr(layer, "approximate", None))), fused, differ)


def _choose_gated_by_gelu(layer: nn.Module) -> type[nn.Module] | None:
    # It cannot be tried: where an NPU is installed, its own forward runs on nothing else.
    own = type(layer).__name__ == "GEGLU" and type(layer).__module__.startswith("diffusers.")
    return _with_forward(type(layer), _GatedByGELU.forward) if own else None


def _choose_patches(layer: nn.Module) -> type[nn.Module] | None:
    if type(layer) is not nn.Conv2d or layer.kernel_size != layer.stride:
        return None
    if layer.kernel_size == (1, 1):
        return None
    plain = layer.padding in ((0, 0), "valid") and layer.dilation == (1, 1) and layer.groups == 1
    return _with_forward(nn.Conv2d, _PatchEmbedding.forward) if plain else None


_KINDS: dict[str, Callable[[nn.Module], type[nn.Module] | None]] = {
    "rms_norm": _choose_norm,
    "swiglu": _choose_feed_forward,
    "rotary": _choose_rotation,
    "gelu": _choose_gelu,
    "geglu": _choose_gated_by_gelu,
    "patch_embedding": _choose_patches,
}


def _with_forward(family: type[nn.Module], forward: Callable[..., Any]) -> type[nn.Module]:
    return type(f"Fused{family.__name__}", (family,), {"forward": forward})


def _epsilon(layer: nn.Module) -> float | None:
    found = [vars(layer)[name] for name in _EPSILONS if name in vars(layer)]
    return found[0] if len(found) == 1 and isinstance(found[0], float) else None


def _gives_other(twin: nn.Module, fused: type[nn.Module], given: Tensor) -> bool:
    theirs = twin(given)
    twin.__class__ = fused
    return not torch.equal(theirs, twin(given))


def _tried(
    key: tuple[type | str, ...], fused: type[nn.Module], differ: Callable[[torch.dtype], bool]
) -> type[nn.Module] | None:
    """The class with another forward if it gives the same in every dtype; tried once per key.

    A layer that cannot be tried in this way is left as it is.
    """
    if key not in _TRIED:
        try:
            with _disable_current_modes(), torch.no_grad(), torch.device("cpu"):
                same = not any(differ(dtype) for dtype in _DTYPES)
        except (RuntimeError, TypeError, AttributeError, KeyError, IndexError, ValueError):
            same = False
        _TRIED[key] = fused if same else None
    return _TRIED[key]


def _random(*shape: int, dtype: torch.dtype) -> Tensor:
    # Of its own, because the generators of the process belong to the run.
    generator = torch.Generator("cpu").manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, device="cpu").to(dtype)


def _random_linear(width_in: int, width_out: int, *, dtype: torch.dtype) -> nn.Linear:
    with torch.device("meta"):
        linear = nn.Linear(width_in, width_out, bias=False)
    linear.weight = nn.Parameter(_random(width_out, width_in, dtype=dtype))
    return linear
