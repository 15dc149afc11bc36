"""Recompute blocks in the backward pass instead of keeping what they have computed.

Source: activation checkpointing (Chen et al. 2016); the selective kind keeps what is dear to
    compute again (torch.utils.checkpoint.create_selective_checkpoint_contexts).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from mllm_npu.ops.attention_kernels import attention_kernels

Recompute = Literal["none", "full", "selective"]
RECOMPUTE = ("none", "full", "selective")

_ops = torch.ops.aten
_PRODUCTS = {_ops.mm.default, _ops.addmm.default, _ops.linear.default}


def recompute_block(block: nn.Module, kind: Recompute) -> None:
    """Make a block recompute itself in the backward pass, in place; its names stay.

    Args:
        block: gives the same result each time it is called; random numbers are drawn again.
        kind: ``none`` leaves it, ``full`` keeps only its inputs, ``selective`` also the results of
            attention and of every second matrix product.
    """
    if kind == "none":
        return
    options: dict[str, Any] = {"use_reentrant": False}
    if kind == "selective":
        options["context_fn"] = _selective_contexts
    forward: Callable[..., Any] = block.forward

    @functools.wraps(forward)
    def recomputed(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, **options, **kwargs)

    block.forward = recomputed


def _selective_contexts() -> Any:
    counts = {"forward": 0, "recompute": 0}
    kept = attention_kernels()

    def choose(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        if operation in kept:
            return CheckpointPolicy.MUST_SAVE
        if operation in _PRODUCTS:
            when = "recompute" if context.is_recompute else "forward"
            counts[when] += 1
            if counts[when] % 2:
                return CheckpointPolicy.MUST_SAVE
        return CheckpointPolicy.PREFER_RECOMPUTE

    return create_selective_checkpoint_contexts(choose)  # type: ignore[no-untyped-call]
