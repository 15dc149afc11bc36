"""Take steps of small models and list their kernels, to learn what surrounds them.

Between kernels there are modules, autograd, the allocator, and what spreads a model over ranks.
What they cost is the time of a step less that of its kernels alone.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mllm_npu.distributed.mesh import Mesh
from mllm_npu.distributed.parallel import Kind
from mllm_npu.plan.steady_clock import SteadyClock
from mllm_npu.plan.traced_step import Exchange, Operation, Phase
from mllm_npu.plan.trial_model import PHASES, Size, Trial

SIZES = (Size(width=64, blocks=2, tokens=128), Size(width=192, blocks=3, tokens=384))
_STEPS = 15
_WARM_UP = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialStep:
    """What was seen.

    Args:
        operations: of a step.
        exchanges: of a step.
        seconds: of each phase by the steady clock, a median, and the mean over ranks.
        parameters: tensors that are trained.
    """

    operations: Sequence[Operation]
    exchanges: Sequence[Exchange]
    seconds: Mapping[Phase, float]
    parameters: int


def take_steps(
    size: Size,
    clock: SteadyClock,
    *,
    mesh: Mesh | None = None,
    kinds: Sequence[Kind] = ("single",),
    steps: int = _STEPS,
) -> dict[Kind, TrialStep]:
    """Train a small model for some steps; of several kinds, each takes a step in turn.

    Args:
        size: of the model.
        clock: of the device.
        mesh: the ranks that make it together; none makes it alone.
        kinds: of spreading it over ranks; "single" is every rank for itself.
        steps: that are measured.
    """
    mesh = mesh or Mesh.single()
    trials = {kind: Trial(size, clock.device, mesh=mesh, kind=kind) for kind in kinds}
    for trial in trials.values():
        for _ in range(_WARM_UP):
            trial.step()
    logs = {kind: trial.listed() for kind, trial in trials.items()}
    seen: dict[Kind, list[dict[Phase, float]]] = {kind: [] for kind in kinds}
    for _ in range(steps):
        for kind, trial in trials.items():
            mesh.barrier()
            factor = clock.factor()
            spent = trial.step()
            seen[kind].append({phase: factor * taken for phase, taken in spent.items()})
    return {
        kind: TrialStep(
            operations=logs[kind].operations(),
            exchanges=logs[kind].exchanges(),
            seconds=_mean(mesh, _medians(seen[kind])),
            parameters=len(trials[kind].parameters),
        )
        for kind in kinds
    }


def _medians(seen: Sequence[Mapping[Phase, float]]) -> dict[Phase, float]:
    medians = {phase: statistics.median(one[phase] for one in seen) for phase in PHASES}
    if not all(math.isfinite(value) for value in medians.values()):
        raise RuntimeError(f"times of a trial are {medians}")
    return medians


def _mean(mesh: Mesh, medians: Mapping[Phase, float]) -> dict[Phase, float]:
    sums = mesh.sum({str(phase): seconds for phase, seconds in medians.items()})
    return {phase: sums[phase] / mesh.world_size for phase in PHASES}
