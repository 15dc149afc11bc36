"""Build a side so that it can run packs: model, objective and values on one process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from mllm_npu.batch import Batch
from mllm_npu.build import (
    build_part,
    build_processor,
    compose_model,
    place_objective,
    require_world,
)
from mllm_npu.compare.side import Side
from mllm_npu.compare.watch import label
from mllm_npu.composition import StartingValues, first_weights
from mllm_npu.config import Config
from mllm_npu.device.platform import pick_device
from mllm_npu.device.process import tune_process
from mllm_npu.distributed.fit import named_tensors
from mllm_npu.distributed.parallel import Parallel
from mllm_npu.distributed.placed import Placed
from mllm_npu.errors import ConfigError
from mllm_npu.model_fit import check_fit
from mllm_npu.ops.ways import only_reference
from mllm_npu.train.objectives.objective import Objective
from mllm_npu.train.random_state import seed_pack


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A side that is built.

    Args:
        side: what stands there.
        config: what it was built from.
        placed: the objective in its place, values and all.
        objective: the same without its place.
    """

    side: Side
    config: Config
    placed: Placed
    objective: Objective

    @contextmanager
    def running(self, pack: int) -> Iterator[None]:
        """A pack runs inside: in evaluation mode, seeded, in the way the side asks for.

        Args:
            pack: number of the pack, which seeds what is drawn.
        """
        self.objective.eval()
        only = self.side.kind == "way" and self.side.word == "reference"
        with only_reference() if only else nullcontext():
            seed_pack(self.config.seed, pack)
            yield

    def prepare(self, batch: Batch) -> dict[str, Tensor]:
        """Do what the objective does before its first step, on one pack.

        Returns:
            Buffers that have changed, by name, on the host.
        """
        before = {name: buffer.clone() for name, buffer in self.objective.named_buffers()}
        with self.placed.gathered():
            self.objective.prepare(iter([batch]))
        return {
            name: buffer.detach().cpu().clone()
            for name, buffer in self.objective.named_buffers()
            if name not in before or not torch.equal(before[name], buffer)
        }

    def take_buffers(self, buffers: Mapping[str, Tensor]) -> None:
        """Set buffers to what another side has prepared."""
        own = dict(self.objective.named_buffers())
        for name, value in buffers.items():
            own[name].copy_(value)

    def checksums(self) -> dict[str, str]:
        """Of each parameter and saved buffer, by name."""
        return {
            label(name): _checksum(tensor) for name, tensor in named_tensors(self.objective).items()
        }

    def shapes(self) -> dict[str, list[int]]:
        """Sizes of the same."""
        return {
            label(name): list(tensor.shape)
            for name, tensor in named_tensors(self.objective).items()
        }


def build_bench(side: Side, config: Config) -> Bench:
    """Build a side as a run builds its trainer, up to the objective in its place.

    Raises:
        MllmNpuError: whatever part cannot be built says why.
    """
    tune_process(config.threads)
    device = pick_device(config.device)
    parallel: Parallel = build_part(config.parallel)
    mesh = parallel.start(device)
    torch.manual_seed(config.seed)
    values = StartingValues(config, weights=first_weights(config), fresh=config.fresh)
    model = compose_model(values)
    if config.lora is not None:
        recipe: Any = build_part(config.lora)
        recipe.apply(recipe.part_of(model))
    objective: Objective = build_part(config.objective, model=model)
    placed = place_objective(objective, config, values, parallel, mesh)
    objective.eval()
    return Bench(side=side, config=config, placed=placed, objective=objective)


def read_packs(bench: Bench, count: int) -> list[Batch]:
    """The first packs a run of this configuration would see.

    Raises:
        ConfigError: the data set has no plan to look at, or fewer packs.
    """
    config = bench.config
    require_world(config)
    processor = build_processor(config)
    check_fit(bench.objective.model, processor)
    batches = build_part(config.dataset, processor=processor, rank=0, world_size=1)
    packs = list(islice(batches.preview(), count))
    if len(packs) < count:
        raise ConfigError(
            f"{count} packs were asked for, the data have {len(packs)}. Lower --steps, or choose "
            "data that repeat (epochs=null)."
        )
    return packs


def _checksum(tensor: Tensor) -> str:
    value = tensor.detach().to("cpu").contiguous()
    real = torch.view_as_real(value) if value.is_complex() else value
    content = real.reshape(-1).view(torch.uint8).numpy().data
    return hashlib.blake2b(content, digest_size=16).hexdigest()
