"""Lay the weights of linear layers out anew for few rows at a time, where a processor gains by it.

A step of a few requests is a product of a few rows with every weight, and is as slow as memory is.
oneDNN reads weights that lie in its own blocks once for all rows, so that eight requests cost
about what one does; from the plain layout they cost twice as much. A row's result does not depend
on the rows beside it. Weights are in memory twice meanwhile.

Shape letters: N rows, D width.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_FEW_ROWS = 8
"""Rows the blocks are laid out for; any number may come."""
_LEAST = 2**14
"""Weights of a layer that is worth it."""


def pack_linear(model: nn.Module) -> int:
    """Lay out the weights of all plain linear layers on the CPU in float32, in place.

    Names, parameters and what training sees stay as they are; a weight that is changed later is
    laid out again when it is next used.

    Returns:
        How many layers; 0 where the processor or torch has no such layout.
    """
    layers = [layer for layer in model.modules() if _suits(layer)]
    if not layers or not _can_pack():
        return 0
    for layer in layers:
        layer.__class__ = _PackedLinear
    return len(layers)


def unpack_linear(model: nn.Module) -> None:
    """Give the memory back, in place."""
    for layer in model.modules():
        if isinstance(layer, _PackedLinear):
            vars(layer).pop("packed", None)
            layer.__class__ = nn.Linear  # type: ignore[assignment]


class _PackedLinear(nn.Linear):
    """A linear layer that keeps a second copy of its weight in blocks."""

    packed: tuple[Tensor, tuple[int, int]] | None = None

    def forward(self, input: Tensor) -> Tensor:
        if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or not _fits(input):
            return F.linear(input, self.weight, self.bias)
        weight, now = self.weight, (self.weight.data_ptr(), self.weight._version)
        packed = self.packed
        if packed is None or packed[1] != now:
            self.packed = packed = (_lay_out(weight), now)
        return _multiply(input, packed[0], self.bias)


def _fits(rows: Tensor) -> bool:
    return rows.dtype == torch.float32 and rows.device.type == "cpu" and rows.numel() > 0


def _suits(layer: nn.Module) -> bool:
    if type(layer) is not nn.Linear or layer.weight.numel() < _LEAST:
        return False
    weight = layer.weight
    if type(weight) is not nn.Parameter:  # a quantised one holds no plain values
        return False
    return (
        weight.dtype == torch.float32 and weight.device.type == "cpu" and not weight.is_inference()
    )


def _lay_out(weight: Tensor) -> Tensor:
    blocks: Any = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _FEW_ROWS)
    return blocks


def _multiply(rows_ND: Tensor, blocks: Tensor, bias: Tensor | None) -> Tensor:
    out: Any = torch.ops.mkldnn._linear_pointwise(rows_ND, blocks, bias, "none", [], "")
    return out


@functools.cache
def _can_pack() -> bool:
    """Whether it gives what it should, tried on a small layer."""
    weight, rows = torch.ones(32, 16, device="cpu"), torch.ones(3, 16, device="cpu")
    try:
        with torch.no_grad():
            found = _multiply(rows, _lay_out(weight), None)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return torch.allclose(found, rows @ weight.t())
