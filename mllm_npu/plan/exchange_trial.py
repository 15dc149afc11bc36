"""Time exchanges between processes of this machine; each process runs this module as one rank."""

from __future__ import annotations

import functools
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from mllm_npu.device.process import tune_allocator
from mllm_npu.distributed.local_ranks import run_local_ranks
from mllm_npu.errors import ConfigError

Times = dict[str, list[tuple[int, float]]]
"""By kind of exchange: bytes of the whole tensor and processor seconds of a rank, ascending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeTimes:
    """Processor seconds of a rank.

    Args:
        exchanges: of each kind by size; empty for one process.
        sharding: that FSDP2 costs beside each of its exchanges.
        update: that it costs for each parameter that is updated.
    """

    exchanges: Times
    sharding: float = 0.0
    update: float = 0.0


SIZES = (1 << 12, 1 << 16, 1 << 20, 1 << 23)
BLOCKS, LAYERS, WIDTH = 4, 4, 16
"""Blocks with about as many parameters each as one of a language model."""
_SECONDS = 0.3
_MOST, _ROUNDS = 20, 7
_PATIENCE = 120.0
# Their names from torch 2.13 on, and before.
_GATHER = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
_SCATTER = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)


def measure_exchanges(ranks: int) -> ExchangeTimes:
    """Start ranks here and let them exchange.

    Args:
        ranks: how many processes.

    Returns:
        Processor seconds of a rank.

    Raises:
        ConfigError: a rank failed.
    """
    command = [sys.executable, "-m", "mllm_npu.plan.exchange_trial"]
    outcome = run_local_ranks(command, ranks, seconds=_PATIENCE)
    if outcome.complaints:
        raise ConfigError(
            f"Exchanges between {ranks} processes were to be measured: "
            f"{'; '.join(outcome.complaints)}. Plan with fewer, cluster.node_size=1."
        )
    found = json.loads(outcome.output.strip().splitlines()[-1])
    times = {kind: [(int(size), float(took)) for size, took in rows]
             for kind, rows in found["exchanges"].items()}  # fmt: skip
    return ExchangeTimes(
        exchanges=times, sharding=float(found["sharding"]), update=float(found["update"])
    )


def seconds_of(times: Sequence[tuple[int, float]], size: int) -> float:
    """Seconds of an exchange of a size between or beyond the measured ones."""
    small = times[0]
    if size <= small[0]:
        return small[1]
    pairs = list(itertools.pairwise(times))
    left, right = next((pair for pair in pairs if size <= pair[1][0]), pairs[-1])
    slope = (right[1] - left[1]) / (right[0] - left[0])
    return max(small[1], left[1] + slope * (size - left[0]))


def main() -> None:
    """Be a rank; the first one writes what was found."""
    torch.set_num_threads(1)
    tune_allocator()
    dist.init_process_group("gloo")
    ranks = dist.get_world_size()
    exchanges: Times = {"all_gather": [], "reduce_scatter": [], "all_reduce": []}
    for size in SIZES:
        count = max(1, size // 4 // ranks)
        whole, piece = torch.zeros(count * ranks), torch.zeros(count)
        calls: dict[str, Callable[[], object]] = {
            "all_gather": functools.partial(_GATHER, whole, piece),
            "reduce_scatter": functools.partial(_SCATTER, piece, whole),
            "all_reduce": functools.partial(dist.all_reduce, whole),
        }
        for kind, call in calls.items():
            exchanges[kind].append((whole.nbytes, _time(call)))
    sharding, update = _sharding_seconds(exchanges)
    if dist.get_rank() == 0:
        found = {"exchanges": exchanges, "sharding": sharding, "update": update}
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
    dist.barrier()
    os._exit(0)


def _time(call: Callable[[], object]) -> float:
    """Processor seconds of a call that all ranks make together, threads of its library included.

    The median of a few rounds, and the mean over ranks.
    """
    call()
    dist.barrier()
    begin = time.perf_counter()
    call()
    one = torch.tensor(time.perf_counter() - begin)
    dist.all_reduce(one, op=dist.ReduceOp.MAX)
    calls = max(1, min(_MOST, int(_SECONDS / _ROUNDS / max(float(one), 1e-6))))
    taken = []
    for _ in range(_ROUNDS):
        dist.barrier()
        begin = time.process_time()
        for _ in range(calls):
            call()
        taken.append((time.process_time() - begin) / calls)
    found = torch.tensor(statistics.median(taken))
    dist.all_reduce(found)
    return float(found) / dist.get_world_size()


def _sharding_seconds(exchanges: Times) -> tuple[float, float]:
    """What FSDP2 costs beside each exchange, and in the update for each parameter.

    The same small blocks are trained sharded and whole.
    """
    value = torch.ones(4, WIDTH)
    passes, updates = [], []
    for is_sharded in (False, True):
        model = nn.Sequential(
            *(
                nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)))
                for _ in range(BLOCKS)
            )
        )
        if is_sharded:
            for block in model:
                fully_shard(block)
            fully_shard(model)
        parameters = list(model.parameters())
        optimizer = torch.optim.AdamW(parameters, fused=True)

        def step(model: nn.Module = model) -> None:
            model.zero_grad()
            model(value).sum().backward()

        def update(
            parameters: list[nn.Parameter] = parameters,
            optimizer: torch.optim.Optimizer = optimizer,
        ) -> None:
            norm = nn.utils.clip_grad_norm_(parameters, 1.0)
            if isinstance(norm, DTensor):
                norm.full_tensor()
            optimizer.step()

        passes.append(_time(step))
        updates.append(_time(update))
    size = 4 * LAYERS * (WIDTH * WIDTH + WIDTH)
    gathered = seconds_of(exchanges["all_gather"], size)
    scattered = seconds_of(exchanges["reduce_scatter"], size)
    beside = passes[1] - passes[0] - BLOCKS * (2 * gathered + scattered)
    summed = seconds_of(exchanges["all_reduce"], 4)
    later = updates[1] - updates[0] - summed
    return max(0.0, beside / (3 * BLOCKS)), max(0.0, later / (2 * LAYERS * BLOCKS))


if __name__ == "__main__":
    main()
