"""Train a few updates on several processes, and count what they exchange and hold.

It is started by `scaling.py`: torchrun --nproc-per-node=4 scaling_worker.py FILE OVERRIDE...
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from mllm_npu.build import build_trainer
from mllm_npu.config import load_config
from mllm_npu.train.trainer import Trainer

_NAMES = ("all_gather_single", "reduce_scatter_single", "all_reduce", "all_gather")
"""What FSDP2 and the loop exchange with; counted by size, as a ring moves it."""


def main() -> None:
    """Train, and let the first rank write what was found."""
    file, *overrides = sys.argv[1:]
    trainer: Trainer = build_trainer(load_config("training", overrides))
    sent = count_exchanges(trainer.mesh.world_size)
    called = note_calls(trainer)
    per_step: list[Counter[str]] = []
    following = trainer.feed.next

    def noted(step: int) -> Any:
        per_step.append(Counter(sent))
        return following(step)

    trainer.feed.next = noted  # type: ignore[method-assign]
    trainer.run(resume="never")
    # The first update sets up; the last one is followed by a checkpoint.
    steps = [after - before for before, after in itertools.pairwise(per_step[1:])]
    found = {
        "world": trainer.mesh.world_size,
        "bytes_per_step": {name: sum(step[name] for step in steps) / len(steps) for name in _NAMES},
        "formula": expected_bytes(trainer, called),
        "held_bytes": held_bytes(trainer),
        "loss": last_loss(trainer),
    }
    trainer.mesh.barrier()
    if trainer.mesh.is_main:
        Path(file).write_text(json.dumps(found), encoding="utf-8")
    trainer.mesh.barrier()
    os._exit(0)


def count_exchanges(world_size: int) -> Counter[str]:
    """Count from now on what this rank sends, by kind of exchange."""
    sent: Counter[str] = Counter()
    share = (world_size - 1) / world_size

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def exchange(*args: Any, **kwargs: Any) -> Any:
            sent[name] += int(_moved(name, args, kwargs, share))
            return call(*args, **kwargs)

        return exchange

    for name in _NAMES:
        setattr(dist, name, counted(name, getattr(dist, name)))
    return sent


def note_calls(trainer: Trainer) -> set[nn.Module]:
    """The sharded blocks that are called; an objective does not need all parts of its model."""
    called: set[nn.Module] = set()
    for part in trainer.placed.module.modules():
        if isinstance(part, FSDPModule):
            part.register_forward_pre_hook(lambda block, _: called.add(block))
    return called


def _moved(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], share: float) -> float:
    """Bytes a rank sends in a ring: of the gathered or scattered whole; twice that in a sum."""
    whole: torch.Tensor
    if name == "all_gather":
        return share * sum(part.nbytes for part in args[0])
    if name == "all_gather_single":
        whole = kwargs.get("output", args[0] if args else None)
    elif name == "reduce_scatter_single":
        whole = kwargs.get("input", args[1] if len(args) > 1 else None)
    else:
        return 2 * share * args[0].nbytes
    return share * whole.nbytes


def expected_bytes(trainer: Trainer, called: set[nn.Module]) -> float:
    """What FSDP2 must send per update: parameters once or twice, gradients of the trained once.

    Blocks are gathered for the forward pass and again for the backward pass, if a gradient flows
    through them; what is around them is gathered once.

    Args:
        trainer: after its run.
        called: the blocks that were called.
    """
    world, module = trainer.mesh.world_size, trainer.placed.module
    packs = trainer.feed.per_step
    blocks = [part for part in module.modules() if isinstance(part, FSDPModule)]
    inner = [block for block in blocks if block is not module]
    in_blocks = {id(p) for block in inner for p in block.parameters()}
    total = 0.0
    for block in (block for block in inner if block in called):
        parameters = list(block.parameters())
        trained = [p for p in parameters if p.requires_grad]
        size = sum(p.numel() for p in parameters) * 4
        total += size * (2 if trained else 1) + sum(p.numel() for p in trained) * 4
    around = [p for p in module.parameters() if id(p) not in in_blocks]
    total += sum(p.numel() for p in around) * 4
    total += sum(p.numel() for p in around if p.requires_grad) * 4
    return packs * total * (world - 1) / world


def held_bytes(trainer: Trainer) -> int:
    """Parameters and optimizer state this rank holds."""
    tensors = [p.detach() for p in trainer.objective.parameters()]
    for state in trainer.update.optimizer.state.values():
        tensors += [value for value in state.values() if torch.is_tensor(value)]
    local = [t.to_local() if isinstance(t, DTensor) else t for t in tensors]
    return sum(t.untyped_storage().nbytes() for t in local)


def last_loss(trainer: Trainer) -> float:
    """Loss of the last update."""
    if not trainer.mesh.is_main:
        return float("nan")
    lines = trainer.recorder.metrics_path.read_text(encoding="utf-8").splitlines()
    return float(json.loads(lines[-1])["loss"])


if __name__ == "__main__":
    main()
