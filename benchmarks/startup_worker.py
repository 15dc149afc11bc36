"""Start the 13B configuration as one rank of eight would, and say what the process held at most.

It is started by `scaling.py`: startup_worker.py RANK WORLD_SIZE WEIGHTS TOKENIZER. The other ranks
are only imagined (torch's fake process group): what a rank reads and keeps does not depend on them
before the first exchange.
"""

from __future__ import annotations

import json
import os
import sys
import time

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from mllm_npu.build import build_objective, build_part, build_processor
from mllm_npu.composition import StartingValues, first_weights
from mllm_npu.config import load_config
from mllm_npu.device.memory import peak_rss_gib
from mllm_npu.distributed.parallel import Parallel
from mllm_npu.models.lora_values import initialise_adapters


def main() -> None:
    """Compose, adapt, shard, read."""
    rank, world_size, weights, tokenizer = sys.argv[1:]
    os.environ |= {"RANK": rank, "WORLD_SIZE": world_size}
    dist.init_process_group("fake", store=FakeStore(), rank=int(rank), world_size=int(world_size))
    config = load_config(
        "training",
        [
            "experiment=seedx/sft",
            "parallel=fsdp2",
            f"models.pretrained_model_name_path={weights}",
            f"tokenizer.path={tokenizer}",
        ],
    )
    begin = time.perf_counter()
    device = torch.device("cpu")
    parallel: Parallel = build_part(config.parallel)
    mesh = parallel.start(device)
    before = peak_rss_gib()
    values = StartingValues(config, weights=first_weights(config))
    objective = build_objective(config, values, build_processor(config))
    placed = parallel.shape(objective, mesh, device)
    values.fill(objective.model, device=placed.rows_device)
    initialise_adapters(objective.model, config.seed)
    placed.settle()
    own = [p.to_local() if isinstance(p, DTensor) else p for p in objective.parameters()]
    found = {
        "rank": int(rank),
        "host_rss_gib": round(peak_rss_gib(), 3),
        "before_gib": round(before, 3),
        "own_gib": round(sum(p.numel() * p.element_size() for p in own) / 2**30, 3),
        "parameters": sum(p.numel() for p in objective.parameters()),
        "without_memory": sum(p.is_meta for p in objective.parameters()),
        "seconds": round(time.perf_counter() - begin, 1),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
