"""A small language model that is trained here for a moment, by the code that trains large ones.

Shape letters: T tokens, D width.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mllm_npu.distributed.mesh import Mesh
from mllm_npu.distributed.parallel import Kind, Parallel
from mllm_npu.models.language_model.huggingface import HuggingFaceLanguageModel
from mllm_npu.plan.kernel_watch import KernelWatch
from mllm_npu.plan.operation_log import OperationLog
from mllm_npu.plan.part_watch import PartWatch
from mllm_npu.plan.traced_step import Phase

PHASES: tuple[Phase, ...] = ("forward", "backward", "optimizer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Of a model and its pack."""

    width: int
    blocks: int
    tokens: int
    classes: int = 1000


class TrialModel(nn.Module):
    """A language model and its loss.

    Args:
        size: of it.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.model = HuggingFaceLanguageModel(
            config={
                "model_type": "llama",
                "hidden_size": size.width,
                "intermediate_size": size.width * 8 // 3,
                "num_hidden_layers": size.blocks,
                "num_attention_heads": 4,
                "vocab_size": size.classes,
            }
        )

    def forward(self, ids_T: Tensor, positions_T: Tensor, ends: Sequence[int]) -> Tensor:
        """Loss of guessing the tokens, 0-d."""
        embeds_TD = self.model.embed(ids_T)
        states_TD = self.model(embeds_TD, position_ids_T=positions_T, sequence_ends=ends)
        return F.cross_entropy(self.model.logits(states_TD), ids_T)

    def sharding_units(self) -> Sequence[nn.Module]:
        """See Shardable."""
        return self.model.sharding_units()

    def compute_on(self, device: torch.device) -> None:
        """It computes where its inputs are."""


class Trial:
    """A small model in its place, its optimizer and a pack of two sequences.

    Args:
        size: of the model.
        device: where.
        mesh: the ranks that make it; none makes it alone.
        kind: of spreading it over them.
    """

    def __init__(
        self, size: Size, device: torch.device, *, mesh: Mesh | None = None, kind: Kind = "single"
    ) -> None:
        self.device = device
        self.mesh = mesh or Mesh.single()
        self.module = TrialModel(size)
        self.placed = Parallel(kind=kind).shape(self.module, self.mesh, device)
        self.placed.settle()
        self.parts = PartWatch(self.module)
        self.parameters = list(self.module.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, fused=True)
        generator = torch.Generator().manual_seed(0)
        ids_T = torch.randint(size.classes, (size.tokens,), generator=generator)
        self.ids_T = ids_T.to(device)
        self.positions_T = torch.arange(size.tokens, device=device)
        self.ends = (size.tokens // 2, size.tokens)

    def step(self) -> dict[Phase, float]:
        """One step; gives the seconds of its phases, on a processor of its own time."""
        marks = [processor_or_wall(self.device)]
        loss = self.placed(self.ids_T, self.positions_T, self.ends)
        marks.append(processor_or_wall(self.device))
        loss.backward()
        marks.append(processor_or_wall(self.device))
        self.parts.optimizing = True
        self.placed.clip_gradients(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.parts.optimizing = False
        marks.append(processor_or_wall(self.device))
        spent = (later - sooner for sooner, later in itertools.pairwise(marks))
        return dict(zip(PHASES, spent, strict=True))

    def listed(self) -> OperationLog:
        """Kernels and exchanges of a step."""
        log = OperationLog(parts=self.parts, world=self.mesh.world_size)
        with self.parts(), KernelWatch(log=log):
            self.step()
        return log


def processor_or_wall(device: torch.device) -> float:
    """Seconds of what a device does: a processor's own time, shared among threads, or the clock."""
    if device.type == "cpu":
        return time.process_time() / torch.get_num_threads()
    torch.accelerator.synchronize(device)
    return time.perf_counter()
