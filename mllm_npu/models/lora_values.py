"""Give low-rank updates their first values, on one device or on ranks that keep some rows each."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from mllm_npu.errors import WeightsError
from mllm_npu.models.lora import adapted_layers, updates_of
from mllm_npu.models.own_rows import from_own_rows, own_rows


@torch.no_grad()
def initialise_adapters(model: nn.Module, seed: int) -> int:
    """Give low-rank updates their first values, once the weights under them are there.

    A is drawn uniformly as peft draws it, B is zero, and lengths (DoRA) are those of the rows of
    the weight, so that the model computes what it does without the updates. What is drawn follows
    from the seed and the name in ``model``: every rank draws the same, and keeps its own rows of a
    sharded parameter. Updates without memory get some, beside their weight.

    Returns:
        How many layers have an update; 0 where there are none.

    Raises:
        WeightsError: a weight under an update has no memory, or its rows are not shared out.
    """
    layers = list(adapted_layers(model))
    for name, layer in layers:
        weight = layer.get_base_layer().weight
        if weight.is_meta:
            raise WeightsError(
                f"The low-rank update of {name!r} was to be initialised, and its weight has no "
                "memory (it is on the meta device); load weights first."
            )
        for kind, update in updates_of(layer):
            begin, end = _rows_of(update.weight)
            if kind == "lora_magnitude_vector":
                rows = _lengths(weight, begin, end, name)
            else:
                shape = update.weight.shape
                whole = _draw(shape, f"{seed}/{name}") if kind == "lora_A" else torch.zeros(shape)
                rows = whole[begin:end]
            _fill(update, rows, weight)
    return len(layers)


def _draw(shape: torch.Size, name: str) -> Tensor:
    """Uniform within 1 / sqrt(columns), which is what peft's Kaiming rule comes to."""
    digest = hashlib.sha256(name.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    bound = 1 / math.sqrt(shape[1])
    return torch.rand(shape, generator=generator) * (2 * bound) - bound


def _lengths(weight: Tensor, begin: int, end: int, name: str) -> Tensor:
    """Lengths of rows ``begin`` to ``end`` of a weight, which must be the rows kept here."""
    kept = _rows_of(weight)
    if kept != (begin, end):
        raise WeightsError(
            f"{name!r} keeps rows {kept[0]} to {kept[1]} of its weight and {begin} to {end} of "
            "their lengths here; shard both alike."
        )
    return torch.linalg.vector_norm(_local(weight).float(), dim=1)


def _rows_of(parameter: Tensor) -> tuple[int, int]:
    """First row of a parameter that is kept here and the one behind the last."""
    return own_rows(parameter) if isinstance(parameter, DTensor) else (0, parameter.shape[0])


def _local(parameter: Tensor) -> Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def _fill(update: Any, rows: Tensor, beside: Tensor) -> None:
    """Put the rows kept here into ``update.weight``, on the device of its neighbour if in need."""
    slot = update.weight
    if not slot.is_meta:
        _local(slot).copy_(rows)
        return
    device = _local(beside).device
    # A copy: rows of a whole would keep the whole, and sharded ones cannot be copied later.
    rows = rows.to(device, slot.dtype, copy=True)
    value = from_own_rows(rows, slot, device) if isinstance(slot, DTensor) else rows
    update.weight = nn.Parameter(value, requires_grad=slot.requires_grad)
