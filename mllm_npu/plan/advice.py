"""The nearest change that makes a run fit, or makes it faster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mllm_npu.errors import MllmNpuError
from mllm_npu.plan.cluster import GIB, Cluster
from mllm_npu.plan.planner import Outcome, Planner
from mllm_npu.plan.search import Candidate
from mllm_npu.plan.setting import Setting

FASTER = 1.02
"""Times the speed from which on a change is worth telling."""
LONG_DRY_RUN = 40.0
"""Seconds of a dry run from which on no other one is made for advice, as somebody waits."""
_SHORT_PACK = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """A change, and what comes of it.

    Args:
        overrides: that make it, as typed; empty where it is none of the configuration.
        text: why, and what was found.
        outcome: of its dry run; None where none was made.
    """

    overrides: Sequence[str]
    text: str
    outcome: Outcome | None = None


def advise(planner: Planner, base: Outcome, candidates: Sequence[Candidate]) -> Advice | None:
    """Find the change to tell; None where none is known that helps.

    Args:
        planner: of the run.
        base: the configuration's own outcome.
        candidates: of a search; without them a few changes are tried, the likeliest first.
    """
    outcomes = [one.outcome for one in candidates if one.outcome is not None]
    if not outcomes:
        wishes = propose(base, planner.cluster)
        tries = 0 if base.seconds > LONG_DRY_RUN else planner.options.tries
        outcomes = _tried(planner, wishes[:tries])
        if wishes and not tries:
            text = f"{_reason(base)} Not tried; --search tries it and others."
            return Advice(overrides=wishes[0].overrides(base.setting), text=text)
    better = [one for one in outcomes if helps(one, base)]
    if better:
        nearest = min(better, key=lambda one: _order(one, base))
        return Advice(
            overrides=nearest.setting.overrides(base.setting),
            text=f"{_reason(base)} {_compare(nearest, base)}",
            outcome=nearest,
        )
    return _beside(base, planner.cluster)


def helps(outcome: Outcome, base: Outcome) -> bool:
    """Whether it fits where the configuration does not, or is clearly faster."""
    if not outcome.fit.fits:
        return False
    faster = outcome.step.tokens_per_second > FASTER * base.step.tokens_per_second
    return faster or not base.fit.fits


def propose(base: Outcome, cluster: Cluster) -> list[Setting]:
    """Changes that may help, the likeliest first; none of them was tried."""
    return _smaller(base) if not base.fit.fits else _faster(base, cluster)


def _smaller(base: Outcome) -> list[Setting]:
    """What takes less of the device, by how much it can free."""
    setting, held = base.setting, base.traced.memory.at_peak
    states = sum(held.get(kind, 0) for kind in ("parameters", "gradients", "optimizer"))
    passing = sum(held.get(kind, 0) for kind in ("activations", "temporary"))
    found: list[tuple[float, Setting]] = []
    if setting.recompute != "full":
        found.append((held.get("activations", 0), replace(setting, recompute="full")))
    if setting.kind in ("single", "ddp") and base.traced.ranks > 1:
        kept = states * (1 - 1 / base.traced.ranks)
        found.append((kept, replace(setting, kind="fsdp2", replicas=1)))
    if setting.replicas > 1:
        kept = states * (1 - 1 / setting.replicas)
        found.append((kept, replace(setting, kind="fsdp2", replicas=1)))
    if setting.tokens_per_pack is not None and setting.tokens_per_pack >= 2 * _SHORT_PACK:
        half = replace(setting, tokens_per_pack=setting.tokens_per_pack // 2)
        found.append((passing / 2, half))
    if setting.kind in ("fsdp2", "hsdp") and not setting.cpu_offload:
        found.append((states, replace(setting, cpu_offload=True)))
    enough = [one for one in found if one[0] >= base.fit.missing]
    return [one for _, one in enough or sorted(found, key=lambda one: -one[0])]


def _faster(base: Outcome, cluster: Cluster) -> list[Setting]:
    """What shortens the part that takes most."""
    setting, parts = base.setting, base.step.parts
    pack = setting.tokens_per_pack
    longer = None if pack is None else replace(setting, tokens_per_pack=2 * pack)
    weaker = {"full": "selective", "selective": "none"}.get(setting.recompute)
    again = None if weaker is None else replace(setting, recompute=weaker)
    inside = None
    if setting.kind == "fsdp2" and cluster.num_nodes > 1:
        inside = replace(setting, kind="hsdp", replicas=cluster.num_nodes)
    order: list[Setting | None] = [longer, again]
    if base.step.limiting == "data":
        return []
    if base.step.limiting == "exchange":
        order = [inside, longer, again]
    elif base.step.limiting in ("compute", "memory"):
        order = [again, longer]
        if parts["exchange"] > 0.1 * base.step.seconds:
            order.append(inside)
    return [one for one in order if one is not None]


def _tried(planner: Planner, settings: Sequence[Setting]) -> list[Outcome]:
    found = []
    for setting in settings:
        try:
            found.append(planner.look(setting))
        except MllmNpuError:
            # What cannot be built is no advice.
            continue
    return found


def _order(outcome: Outcome, base: Outcome) -> tuple[float, float]:
    """The nearest that fits, where nothing fits; otherwise the fastest."""
    near = outcome.setting.distance(base.setting)
    speed = -outcome.step.tokens_per_second
    return (near, speed) if not base.fit.fits else (speed, near)


def _reason(base: Outcome) -> str:
    if base.fit.missing > 0:
        return f"A step needs {base.fit.missing / GIB:.1f} GiB more than a device has."
    if not base.fit.fits:
        return "A node has too little memory for what is kept there."
    share = base.step.parts[base.step.limiting] / base.step.seconds
    return f"{_NAMES[base.step.limiting]} takes {share:.0%} of the step."


def _compare(outcome: Outcome, base: Outcome) -> str:
    fit, step = outcome.fit, outcome.step
    times = step.tokens_per_second / base.step.tokens_per_second
    return (
        f"With it: {step.tokens_per_second:,.0f} tokens/s ({times:.2f} times), "
        f"{fit.needed / GIB:.1f} of {fit.limit / GIB:.1f} GiB."
    )


def _beside(base: Outcome, cluster: Cluster) -> Advice | None:
    """What helps and is no way to spread the run."""
    if base.fit.missing > 0:
        nodes = cluster.num_nodes * 2
        text = f"{_reason(base)} No change that was tried makes it fit: more nodes, not tried."
        return Advice(overrides=[f"cluster.num_nodes={nodes}"], text=text)
    if base.step.limiting == "data":
        text = f"{_reason(base)} More workers of the loader, not tried."
        return Advice(overrides=["dataset.num_workers=8"], text=text)
    return None


_NAMES = {
    "compute": "Multiplying matrices",
    "memory": "Moving bytes within the device",
    "launch": "Starting kernels",
    "host": "Waiting for the host to issue operations",
    "exchange": "Waiting for other ranks",
    "optimizer": "The update",
    "offload": "Copying to and from the host",
    "data": "Waiting for data",
}
"""Parts of a step in a sentence."""
