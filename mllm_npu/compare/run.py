"""Run a side from the first pack to the last update, and tell a listener all it gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mllm_npu.batch import Batch
from mllm_npu.compare.bench import Bench
from mllm_npu.compare.isolation import Isolation
from mllm_npu.compare.recording import Call, Event, Facts, Recording
from mllm_npu.compare.side_config import counted_settings
from mllm_npu.compare.updates import make_updates
from mllm_npu.compare.watch import Watch
from mllm_npu.ops import ways


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is compared, and how.

    Args:
        isolate: whether every module is also run alone.
        steps: updates that are made afterwards.
        rtol: one bound for everything; None takes those of the dtypes.
        memory_gib: of what side A gave that stays in memory.
    """

    isolate: bool = False
    steps: int = 0
    rtol: float | None = None
    memory_gib: float = 4.0


class Taker(Protocol):
    """Takes what a side gives, and what is known once it has finished."""

    def take(self, event: Event, tensor: Tensor, *, needs_grad: bool = False) -> None:
        """See ``Listener``."""

    def end(self, calls: Sequence[Call], facts: Facts) -> None:
        """The side has finished."""


def run_side(
    bench: Bench,
    packs: Sequence[Batch],
    taker: Taker,
    wish: Wish,
    *,
    recording: Recording,
    overrides: Sequence[str] = (),
) -> None:
    """Forward and backward pass of the first pack, modules alone, and updates, as it is wished.

    Args:
        bench: of the side.
        packs: the first is looked at; each of as many as there are steps makes an update.
        taker: takes what the side gives.
        wish: what is compared.
        recording: of side A; the taker itself where this is side A.
        overrides: it was asked for with.
    """
    before = ways.calls()
    # Before anything is computed: updates change weights.
    facts = Facts(
        side=str(bench.side),
        title=_title(bench),
        device=bench.placed.device.type,
        compute_dtype=str(bench.placed.compute_dtype).removeprefix("torch."),
        weights=bench.checksums(),
        shapes=bench.shapes(),
        settings=counted_settings(bench.config),
        overrides=list(overrides),
        is_isolated=wish.isolate,
    )
    calls = _run_whole(bench, packs[0], taker)
    if taker is recording:
        taker.end(calls, facts)
    if wish.isolate:
        facts.unlike = _run_modules(bench, packs[0], taker, recording)
    if wish.steps:
        facts.steps = make_updates(bench, packs[: wish.steps], taker, memory_gib=wish.memory_gib)
    counted: Counter[tuple[str, str]] = ways.calls() - before
    facts.ways = {f"{operation}/{way}": count for (operation, way), count in counted.items()}
    taker.end(calls, facts)


def _run_whole(bench: Bench, pack: Batch, taker: Taker) -> list[Call]:
    with Watch(bench.objective, taker) as watch, bench.running(0):
        losses = bench.placed(pack)
        loss: Tensor = losses.total(bench.objective.counts(pack))
        for name, term in losses.terms.items():
            taker.take(_loss_event(name), term.total)
        taker.take(_loss_event("total"), loss)
        with watch.going_back():
            loss.backward()  # type: ignore[no-untyped-call]
    bench.objective.zero_grad(set_to_none=True)
    return watch.calls


def _run_modules(bench: Bench, pack: Batch, taker: Taker, recording: Recording) -> list[str]:
    """Every module alone; gives the names of those that could not be."""
    isolation = Isolation(bench.objective, recording, taker)
    with isolation, bench.running(0), torch.no_grad():
        bench.placed(pack)
    return isolation.unlike


def _loss_event(name: str) -> Event:
    return Event(kind="loss", call=-1, module="loss", count=1, path=name)


def _title(bench: Bench) -> str:
    config = bench.config
    return f"{config.name}" if config.stage == "single" else f"{config.name}/{config.stage}"
