"""Memory of a sharded training step on one of 16 ranks, from the wheel's own allocator.

The other ranks are only said to be there, and kernels compute nothing; what is allocated, kept and
given back is what a real run would.
"""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore, _create_fake_pg

from mllm_npu.device.memory import accelerator_peak_gib
from mllm_npu.distributed.mesh import Mesh
from mllm_npu.distributed.parallel import Parallel
from mllm_npu.models.language_model.huggingface import HuggingFaceLanguageModel

RANKS, TOKENS, WIDTH, BLOCKS, CLASSES = 16, 2048, 1024, 8, 8192
DEVICE = torch.device("npu")
MIB = 1 << 20


class Objective(nn.Module):
    """A language model with a loss, as ``Parallel`` takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.language_model = HuggingFaceLanguageModel(
            config={
                "model_type": "llama",
                "hidden_size": WIDTH,
                "intermediate_size": 3 * WIDTH,
                "num_hidden_layers": BLOCKS,
                "num_attention_heads": 16,
                "num_key_value_heads": 16,
                "vocab_size": CLASSES,
                "tie_word_embeddings": False,
            }
        )

    def sharding_units(self) -> list[nn.Module]:
        return list(self.language_model.sharding_units())

    def compute_on(self, device: torch.device) -> None:
        """Nothing of its own is anywhere else."""

    def forward(self, ids_T: torch.Tensor) -> torch.Tensor:
        places_T = torch.arange(len(ids_T), device=ids_T.device)
        embeds_TD = self.language_model.embed(ids_T)
        states_TD = self.language_model(
            embeds_TD, position_ids_T=places_T, sequence_ends=(len(ids_T),)
        )
        return states_TD.float().mean()


def allocated() -> float:
    return torch.accelerator.memory_allocated(DEVICE) / MIB


dist.Backend.register_backend("said", _create_fake_pg, extended_api=True, devices=["npu", "cpu"])
torch.accelerator.set_device_index(0)
dist.init_process_group("said", rank=0, world_size=RANKS, store=FakeStore())
recipe = Parallel(kind="fsdp2", recompute="full")
mesh = Mesh(rank=0, world_size=RANKS)
with torch.device("meta"):
    objective = Objective()
parameters = sum(parameter.numel() for parameter in objective.parameters())
placed = recipe.shape(objective, mesh, DEVICE)
objective.to_empty(device=DEVICE)
placed.settle()
shard = parameters * 4 / RANKS / MIB
held = allocated()
assert shard * 0.99 < held < shard * 1.2 + 8, (shard, held)

optimizer = torch.optim.AdamW(objective.parameters(), foreach=True)
ids = torch.zeros(TOKENS, dtype=torch.int64, device=DEVICE)
peaks = []
for _ in range(2):
    torch.accelerator.reset_peak_memory_stats(DEVICE)
    loss = placed(ids)
    loss.backward()
    placed.clip_gradients(objective.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    del loss
    peaks.append(accelerator_peak_gib(DEVICE) * 1024)
steady = allocated()
# Parameters and both moments stay; everything gathered and every activation is given back.
assert 3 * shard * 0.99 < steady < 3 * shard * 1.2 + 24, (shard, steady)
assert peaks[1] > steady + shard
whole = parameters * 4 / MIB
assert peaks[1] < whole, (peaks, whole)
sys.stdout.write(
    f"{parameters / 1e6:.0f} M parameters on {RANKS} ranks: {held:.0f} MiB placed, {steady:.0f} "
    f"steady, peak {peaks[1]:.0f}; unsharded parameters alone would be {whole:.0f}\n"
)
