"""Begin to measure the speed of a run: what its parts cost, and what the device could do."""

from __future__ import annotations

import time

import torch

from mllm_npu.device.peaks import peak_flops
from mllm_npu.train.flops import measure_costs
from mllm_npu.train.objectives.objective import Objective
from mllm_npu.train.throughput import Throughput

_AGAIN = {"none": 0.0, "full": 1.0, "selective": 0.5}
"""Share of the forward pass of blocks that the backward pass runs again."""
_BLOCKS = ("vision_encoder", "language_model")


def start_throughput(
    *,
    objective: Objective,
    device: torch.device,
    compute_dtype: torch.dtype,
    recompute: str,
    num_ranks: int,
    copies: int,
    tokens_per_pack: int | None,
    setup_seconds: float = 0.0,
    count_flops: bool = True,
) -> Throughput:
    """Find the costs of an objective that is not spread over ranks yet, and begin to count.

    Args:
        objective: as it was built.
        device: where it will compute.
        compute_dtype: in which matrices are multiplied.
        recompute: what blocks do in the backward pass: none, full or selective.
        num_ranks: of the run.
        copies: ranks that see the same data.
        tokens_per_pack: room of a pack, where that is known.
        setup_seconds: wall time this process had spent before.
        count_flops: whether FLOPs are counted at all.
    """
    if not count_flops:
        return Throughput(
            num_ranks=num_ranks,
            copies=copies,
            tokens_per_pack=tokens_per_pack,
            setup_seconds=setup_seconds,
        )

    def ask_peak() -> float | None:
        peak = peak_flops(device, compute_dtype)
        return None if peak is None else peak.flops

    begin = time.perf_counter()
    costs = measure_costs(objective, recompute=dict.fromkeys(_BLOCKS, _AGAIN[recompute]))
    return Throughput(
        costs=costs,
        peak=ask_peak,
        num_ranks=num_ranks,
        copies=copies,
        tokens_per_pack=tokens_per_pack,
        setup_seconds=setup_seconds + time.perf_counter() - begin,
    )
