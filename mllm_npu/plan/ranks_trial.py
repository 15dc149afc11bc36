"""Let processes of this machine train small models together; each runs this module as one rank.

What a step costs beside its kernels and exchanges depends on who else computes, so it is seen
where ranks compute side by side.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.distributed as dist

from mllm_npu.device.process import tune_allocator
from mllm_npu.distributed.local_ranks import run_local_ranks
from mllm_npu.distributed.mesh import Mesh
from mllm_npu.distributed.parallel import Kind
from mllm_npu.errors import ConfigError
from mllm_npu.plan.exchange_trial import Times, time_exchanges
from mllm_npu.plan.steady_clock import SteadyClock
from mllm_npu.plan.traced_step import Exchange, Operation
from mllm_npu.plan.trial_step import SIZES, TrialStep, take_steps

KINDS: tuple[Kind, ...] = ("single", "fsdp2")
_PATIENCE = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RanksTrial:
    """What was seen, in processor seconds of a rank.

    Args:
        usual: seconds of the steady clock's step.
        exchanges: alone, by kind and size.
        steps: of each size of model, by how it is spread.
    """

    usual: float
    exchanges: Times
    steps: Sequence[Mapping[Kind, TrialStep]]


def try_ranks(ranks: int, *, threads: int) -> RanksTrial:
    """Start ranks here and let them exchange and train.

    Args:
        ranks: how many processes.
        threads: torch computes with in each.

    Raises:
        ConfigError: a rank failed.
    """
    command = [sys.executable, "-m", "mllm_npu.plan.ranks_trial", str(threads)]
    outcome = run_local_ranks(command, ranks, seconds=_PATIENCE)
    if outcome.complaints:
        raise ConfigError(
            f"A trial step of {ranks} processes was to be measured: "
            f"{'; '.join(outcome.complaints)}. Plan with fewer, cluster.node_size=1."
        )
    found = json.loads(outcome.output.strip().splitlines()[-1])
    return RanksTrial(
        usual=found["usual"],
        exchanges=read_times(found["exchanges"]),
        steps=[{kind: _read(step) for kind, step in size.items()} for size in found["steps"]],
    )


def read_times(written: Mapping[str, Sequence[Sequence[float]]]) -> Times:
    """Times of exchanges as they were before they went through JSON."""
    return {
        kind: [(int(size), float(took)) for size, took in rows] for kind, rows in written.items()
    }


def main() -> None:
    """Be a rank; the first one writes what was found."""
    torch.set_num_threads(int(sys.argv[1]))
    tune_allocator()
    device = torch.device("cpu")
    mesh = Mesh.start(device)
    clock = SteadyClock(device)
    clock.usual = mesh.sum({"usual": clock.usual})["usual"] / mesh.world_size
    exchanges = time_exchanges(clock)
    steps = [take_steps(size, clock, mesh=mesh, kinds=KINDS) for size in SIZES]
    if mesh.is_main:
        written = [{kind: asdict(step) for kind, step in size.items()} for size in steps]
        found = {"usual": clock.usual, "exchanges": exchanges, "steps": written}
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
    dist.barrier()
    os._exit(0)


def _read(written: Mapping[str, Any]) -> TrialStep:
    operations = [
        Operation(**{**one, "shapes": tuple(map(tuple, one["shapes"]))})
        for one in written["operations"]
    ]
    return TrialStep(
        operations=operations,
        exchanges=[Exchange(**one) for one in written["exchanges"]],
        seconds=written["seconds"],
        parameters=written["parameters"],
    )


if __name__ == "__main__":
    main()
