"""Everything a plan says about a run, and how it is made."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from mllm_npu.config import Config
from mllm_npu.plan.advice import Advice, advise
from mllm_npu.plan.cluster import GIB, Cluster
from mllm_npu.plan.goodput import Fleet, Goodput, simulate
from mllm_npu.plan.planner import Outcome, Planner
from mllm_npu.plan.search import Candidate, search

Progress = Callable[[int, int], object]

DAY = 86400.0


class Bars(Protocol):
    """Shows how far long work has come."""

    def __call__(self, label: str) -> Progress:
        """A bar with a label; what moves it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a whole run takes.

    Args:
        tokens: trained on.
        days: on the whole cluster, lost time included.
        device_hours: of all devices.
        cost: in the currency of the price; None where that is not known.
    """

    tokens: float
    days: float
    device_hours: float
    cost: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is known about a run before it is launched.

    Args:
        name: of the run.
        cluster: where it would be.
        outcome: of the configuration's own setting.
        goodput: of the cluster, and of other numbers of ranks.
        checkpoint_seconds: of training between two checkpoints, as configured.
        checkpoint_goodput: useful share of the time with those.
        price: of the whole run.
        candidates: of a search, best first; empty without one.
        advice: the nearest change that helps.
        notes: what else is to be known.
        seconds: the plan took.
    """

    name: str
    cluster: Cluster
    outcome: Outcome
    goodput: Sequence[Goodput]
    checkpoint_seconds: float
    checkpoint_goodput: float
    price: Price
    candidates: Sequence[Candidate]
    advice: Advice | None
    notes: Sequence[str]
    seconds: float

    def as_values(self) -> dict[str, Any]:
        """Plain values, for JSON; bytes and seconds."""
        fit, step, traced = self.outcome.fit, self.outcome.step, self.outcome.traced
        return {
            "name": self.name,
            "cluster": self.cluster.name,
            "devices": self.cluster.describes,
            "ranks": self.cluster.ranks,
            "setting": asdict(self.outcome.setting),
            "fits": fit.fits,
            "memory": {
                "needed": fit.needed,
                "limit": fit.limit,
                "steady": traced.memory.steady,
                "peak": traced.memory.peak,
                "margin": traced.memory.margin,
                "at_peak": dict(traced.memory.at_peak),
                "parameters_by_part": dict(traced.memory.parameters_by_part),
                "host": fit.host_needed,
                "host_limit": fit.host_limit,
            },
            "step": {
                "seconds": step.seconds,
                "parts": dict(step.parts),
                "hidden_exchange": step.hidden_exchange,
                "segments": [asdict(segment) for segment in step.segments],
                "tokens_per_second": step.tokens_per_second,
                "tokens_per_second_rank": step.tokens_per_second_rank,
                "mfu": step.mfu,
                "limiting": step.limiting,
                "tokens": traced.tokens * traced.data_ranks,
                "tiles": traced.tiles * traced.data_ranks,
            },
            "parameters": traced.num_parameters,
            "trained_parameters": traced.num_trained,
            "checkpoint_bytes": traced.checkpoint_bytes,
            "checkpoint_seconds": self.checkpoint_seconds,
            "checkpoint_goodput": self.checkpoint_goodput,
            "goodput": [{**asdict(one), "best_interval": one.best_interval,
                         "best_goodput": one.best_goodput} for one in self.goodput],
            "price": asdict(self.price),
            "candidates": [candidate_values(one) for one in self.candidates],
            "advice": None if self.advice is None else {
                "overrides": list(self.advice.overrides),
                "text": self.advice.text,
                "tried": self.advice.outcome is not None,
            },
            "notes": list(self.notes),
            "dry_run_seconds": self.outcome.seconds,
            "seconds": self.seconds,
        }  # fmt: skip


def candidate_values(candidate: Candidate) -> dict[str, Any]:
    """Plain values of a row of the search."""
    found: dict[str, Any] = {"setting": asdict(candidate.setting), "words": candidate.setting.words}
    if candidate.outcome is None:
        return found | {"fits": False, "refused": candidate.refused}
    fit, step = candidate.outcome.fit, candidate.outcome.step
    return found | {
        "fits": fit.fits,
        "needed": fit.needed,
        "seconds": step.seconds,
        "tokens_per_second": step.tokens_per_second,
        "mfu": step.mfu,
        "limiting": step.limiting,
    }


def make_plan(
    overrides: Sequence[str],
    *,
    with_search: bool = False,
    with_fleet: bool = False,
    bars: Bars = lambda label: lambda done, total: None,
) -> Plan:
    """Plan a run.

    Args:
        overrides: as typed after ``mllm-npu plan``.
        with_search: try other ways to spread it.
        with_fleet: simulate the numbers of ranks of ``plan.goodput.ranks`` too.
        bars: shows how far long work has come.

    Raises:
        MllmNpuError: an impossible cluster, settings or parts that do not fit together.
    """
    begin = time.perf_counter()
    notes: list[str] = []
    planner = Planner(overrides, say=notes.append)
    outcome = planner.look()
    counts = [planner.cluster.ranks, *(planner.options.goodput.ranks if with_fleet else ())]
    fleets = [fleet_of(planner, outcome, count) for count in dict.fromkeys(counts)]
    every = planner.config.train.get("checkpoint_every")
    seed = planner.options.goodput.seed
    simulated = [
        simulate(
            fleet,
            seed=seed,
            checkpoint_every=every if fleet is fleets[0] else None,
            progress=bars(f"{fleet.ranks} ranks"),
        )
        for fleet in fleets
    ]
    candidates = search(planner, outcome, progress=bars("dry runs")) if with_search else []
    interval = checkpoint_interval(planner.config, outcome, simulated[0])
    kept = goodput_at(simulated[0], interval)
    return Plan(
        name=f"{planner.config.name}/{planner.config.stage}",
        cluster=planner.cluster,
        outcome=outcome,
        goodput=simulated,
        checkpoint_seconds=interval,
        checkpoint_goodput=kept,
        price=price_of(planner, outcome, kept),
        candidates=candidates,
        advice=advise(planner, outcome, candidates),
        notes=[*notes, *_notes(planner)],
        seconds=time.perf_counter() - begin,
    )


def fleet_of(planner: Planner, outcome: Outcome, ranks: int) -> Fleet:
    """What is simulated of a run on some ranks of the cluster's kind.

    A checkpoint written while training goes on blocks for its copy to the host.
    """
    cluster, asked = planner.cluster, planner.options.goodput
    size = outcome.traced.checkpoint_bytes
    written = size / (cluster.storage_gb * 1e9)
    copied = size / outcome.traced.ranks / (cluster.accelerator.host_link_gb * 1e9)
    checkpoints: Mapping[str, Any] = planner.config.train.get("checkpoints") or {}
    block = max(copied, asked.block_seconds) if checkpoints.get("asynchronous") else written
    return Fleet(
        ranks=ranks,
        step_seconds=outcome.step.seconds,
        device_spread=asked.device_spread,
        step_spread=asked.step_spread,
        failure_seconds=cluster.failure_hours * 3600,
        restart_seconds=cluster.restart_seconds,
        write_seconds=max(written, block),
        block_seconds=block,
    )


def checkpoint_interval(config: Config, outcome: Outcome, simulated: Goodput) -> float:
    """Seconds of training between two checkpoints of a configuration."""
    steps = config.train.get("checkpoint_every") or 1
    return float(steps * outcome.step.seconds * simulated.straggling)


def goodput_at(simulated: Goodput, interval: float) -> float:
    """Useful share of the time at an interval between those that were simulated."""
    return float(np.interp(np.log(interval), np.log(simulated.intervals), simulated.goodput))


def price_of(planner: Planner, outcome: Outcome, goodput: float) -> Price:
    """What the whole run takes.

    Args:
        planner: of the run.
        outcome: of its setting.
        goodput: useful share of the time.
    """
    traced, asked = outcome.traced, planner.options
    steps = planner.config.train.get("max_steps") or 0
    tokens = asked.train_tokens or float(steps * traced.tokens * traced.data_ranks)
    seconds = tokens / outcome.step.tokens_per_second / max(goodput, 1e-9)
    price = planner.cluster.price_per_hour
    price = asked.price_per_hour if asked.price_per_hour is not None else price
    hours = seconds / 3600 * planner.cluster.ranks
    return Price(
        tokens=tokens,
        days=seconds / DAY,
        device_hours=hours,
        cost=None if price is None else hours * price,
    )


def _notes(planner: Planner) -> list[str]:
    measured = planner.cluster.is_here or planner.options.measure
    if measured:
        return ["Times come from operations made on this machine."]
    share = planner.cluster.efficiency
    return [
        f"Times come from the card {planner.cluster.name}: {share.compute:.0%} of its FLOPs, "
        f"{share.memory:.0%} of its memory's and {share.exchange:.0%} of its links' bandwidth. "
        "They were not measured on it."
    ]


def count(number: float) -> str:
    """A number of parameters in words."""
    return f"{number / 1e9:.2f} billion" if number >= 1e8 else f"{number / 1e6:.2f} million"


def gib(size: float) -> str:
    """Bytes as GiB, or MiB where they are few."""
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:.1f} MiB"


def duration(seconds: float) -> str:
    """Seconds in a unit in which they can be read."""
    for unit, length in (("days", DAY), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"
