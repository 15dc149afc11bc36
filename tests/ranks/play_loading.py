"""Models that are composed without memory, spread over ranks, and then filled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pretended import pretended_ranks
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from mllm_npu.distributed.mesh import Mesh
from mllm_npu.distributed.parallel import Parallel
from mllm_npu.models.lora import LoraRecipe
from mllm_npu.models.lora_values import initialise_adapters
from mllm_npu.models.own_rows import own_rows
from mllm_npu.models.tiny import tiny_batch, tiny_seed
from mllm_npu.models.weights import load_weights
from mllm_npu.train.objectives.mllm import MultimodalObjective

CPU = torch.device("cpu")
GROWN = 81
"""Rows of the grown vocabulary; not a multiple of the ranks."""


def adapt(model: nn.Module) -> None:
    """Low-rank updates in the language model, and lengths of rows."""
    recipe = LoraRecipe(
        rank=2, alpha=4.0, dropout=0.0, targets=["*.q_proj", "*.down_proj"], dora=True
    )
    recipe.apply(recipe.part_of(model))


def grow(model: Any) -> None:
    """More tokens than the weights hold."""
    model.language_model.resize_vocabulary(GROWN)


def halve(model: nn.Module) -> None:
    """Frozen values in half precision, with updates trained in single above them."""
    model.to(torch.bfloat16)
    adapt(model)


CASES: dict[str, tuple[str, Callable[[Any], None] | None]] = {
    "torch": ("llama", None),
    "folded": ("llama", None),
    "updates": ("llama", adapt),
    "grown": ("llama", grow),
    "grown head": ("qwen3", grow),
    "half": ("llama", halve),
}
"""By name: family of the language model, and what is done to it before it is filled."""


def load_sharded(folder: Path) -> dict[str, Any]:
    """Compare the rows of this rank with those of a whole model, case by case.

    The weights of each case lie in ``folder`` under its name.
    """
    parallel = Parallel(kind="fsdp2", timeout_seconds=30.0)
    mesh = parallel.start(CPU)
    found: dict[str, Any] = {}
    for name, (family, change) in CASES.items():
        whole = _compose(family, change)
        alone = Parallel(kind="ddp").shape(_objective(whole), Mesh.single(), CPU)
        torch.manual_seed(1)
        expected = load_weights(whole, folder / name, grow=True)
        initialise_adapters(whole, 0)
        with torch.device("meta"):
            hollow = _compose(family, change)
        placed = parallel.shape(_objective(hollow), mesh, CPU)
        torch.manual_seed(1)
        report = load_weights(hollow, folder / name, grow=True)
        initialise_adapters(hollow, 0)
        placed.settle()
        batch = tiny_batch(seed=1)
        losses = [
            one(batch).total(placed.module.counts(batch))  # type: ignore[operator]
            for one in (placed, alone)
        ]
        losses[0].backward()
        found[name] = {
            "report": str(report) == str(expected),
            "wrong": _differences(hollow, whole),
            "kept": _share_kept(hollow),
            "hollow": [n for n, t in hollow.state_dict().items() if t.is_meta],
            "tied": _is_tied(hollow) == _is_tied(whole),
            "losses": [float(loss.detach()) for loss in losses],
        }
    return found


def _compose(family: str, change: Callable[[Any], None] | None) -> Any:
    model = tiny_seed(language=family, normalize=False)
    if change is not None:
        change(model)
    return model


def _objective(model: Any) -> MultimodalObjective:
    names = [name for name, _ in model.named_parameters()]
    if any("lora_" in name for name in names):
        return MultimodalObjective(model=model, trainable=["*lora_*"])
    return MultimodalObjective(model=model, trainable=["*", "!image_decoder.*"])


@torch.no_grad()
def _differences(sharded: nn.Module, whole: nn.Module) -> list[str]:
    wrong, slots = [], sharded.state_dict()
    for name, expected in whole.state_dict().items():
        slot = own = slots[name]
        if isinstance(slot, DTensor):
            begin, end = own_rows(slot)
            own, expected = slot.to_local(), expected[begin:end]
        if own.dtype is not expected.dtype or not torch.equal(own, expected):
            wrong.append(name)
    return wrong


def _share_kept(model: nn.Module) -> float:
    own = sum(p.to_local().numel() for p in model.parameters() if isinstance(p, DTensor))
    return own / sum(p.numel() for p in model.parameters())


def _is_tied(model: Any) -> bool:
    causal = model.language_model.causal_lm
    return causal.lm_head.weight is causal.get_input_embeddings().weight


class Tables(nn.Module):
    """600 MiB in six parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ParameterDict({f"t{n}": torch.empty(25_600, 1024) for n in range(6)})


def load_large(folder: Path, *, file: Path) -> dict[str, Any]:
    """Fill one rank of eight from a large file; memory in MiB."""
    with pretended_ranks(1, 8) as mesh:
        with torch.device("meta"):
            model = Tables()
        fully_shard(model, mesh=mesh)
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        before = _peak()
        load_weights(model, file)
        own = {name: parameter.to_local() for name, parameter in model.tables.items()}  # type: ignore[operator]
        return {
            "peak": _peak() - before,
            "kept": sum(rows.nbytes for rows in own.values()) / 2**20,
            "rows": [float(rows[0, 0]) for rows in own.values()],
        }


def _peak() -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
