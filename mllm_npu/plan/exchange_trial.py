"""Time exchanges between the processes of this machine."""

from __future__ import annotations

import functools
import itertools
import statistics
import time
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist

from mllm_npu.plan.steady_clock import SteadyClock

Times = dict[str, list[tuple[int, float]]]
"""By kind of exchange: bytes of the whole tensor and processor seconds of a rank, ascending."""


SIZES = (1 << 12, 1 << 16, 1 << 20, 1 << 23)
_SECONDS = 0.3
_MOST, _ROUNDS = 20, 7
# Their names from torch 2.13 on, and before.
_GATHER = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
_SCATTER = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)


def seconds_of(times: Sequence[tuple[int, float]], size: int) -> float:
    """Seconds of an exchange of a size between or beyond the measured ones."""
    small = times[0]
    if size <= small[0]:
        return small[1]
    pairs = list(itertools.pairwise(times))
    left, right = next((pair for pair in pairs if size <= pair[1][0]), pairs[-1])
    slope = (right[1] - left[1]) / (right[0] - left[0])
    return max(small[1], left[1] + slope * (size - left[0]))


def time_exchanges(clock: SteadyClock) -> Times:
    """Let all ranks exchange; every one of them calls this, and is given the same.

    Args:
        clock: of this rank's processor.
    """
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
            exchanges[kind].append((whole.nbytes, _time(call, clock)))
    return exchanges


def _time(call: Callable[[], object], clock: SteadyClock) -> float:
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
        clock.start()
        for _ in range(calls):
            call()
        taken.append(clock.read() / calls)
    found = torch.tensor(statistics.median(taken))
    dist.all_reduce(found)
    return float(found) / dist.get_world_size()
