"""Try ways to spread a run over a cluster, and rank them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mllm_npu.errors import MllmNpuError
from mllm_npu.plan.options import SearchOptions
from mllm_npu.plan.planner import Outcome, Planner
from mllm_npu.plan.setting import Setting

Progress = Callable[[int, int], object]
Change = dict[str, Any]
"""Values of a setting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A setting that was tried.

    Args:
        setting: which.
        outcome: None where it was refused.
        refused: why.
    """

    setting: Setting
    outcome: Outcome | None
    refused: str | None = None

    @property
    def fits(self) -> bool:
        """Whether it has room."""
        return self.outcome is not None and self.outcome.fit.fits

    @property
    def rank(self) -> tuple[int, float]:
        """What candidates are ordered by: those that fit by speed, the others by their size."""
        if self.outcome is None:
            return 2, 0.0
        if not self.fits:
            return 1, self.outcome.fit.missing
        return 0, -self.outcome.step.tokens_per_second


def search(
    planner: Planner,
    base: Outcome,
    *,
    progress: Progress = lambda done, total: None,
) -> list[Candidate]:
    """Dry-run settings; the best comes first.

    One value after the other is chosen, how ranks share the model first, unless all combinations
    are asked for. Numbers of micro-batches need two dry runs, whatever they are: the others follow
    exactly.

    Args:
        planner: of the run.
        base: the configuration's own.
        progress: is called with the settings tried and all of them.
    """
    asked = planner.options.search
    tried = _Tried(planner, base, progress)
    if asked.each_with_each:
        settings = list(combinations(asked, base.setting, planner))
        settings.sort(key=lambda setting: setting.distance(base.setting))
        tried.all(settings[: asked.most])
    else:
        axes = _axes(asked, base.setting, planner)
        tried.total = 1 + sum(len(axis) for axis in axes)
        for axis in axes:
            best = tried.best.setting
            room = asked.most - len(tried.candidates)
            tried.all([replace(best, **change) for change in axis][: max(0, room)], more=True)
    if asked.accumulate:
        tried.micro_batches(asked.accumulate)
    return sorted(tried.candidates.values(), key=lambda candidate: candidate.rank)


def combinations(asked: SearchOptions, base: Setting, planner: Planner) -> Iterable[Setting]:
    """Every setting that differs in the values asked for."""
    for changes in itertools.product(*_axes(asked, base, planner)):
        merged: Change = {}
        for change in changes:
            merged |= change
        yield replace(base, **merged)


def _axes(asked: SearchOptions, base: Setting, planner: Planner) -> list[list[Change]]:
    """Values that are chosen together."""
    nodes = planner.cluster.num_nodes
    shares: list[Change] = []
    for kind, size, offload in itertools.product(
        asked.parallel, asked.sequence_size, asked.cpu_offload
    ):
        replicas = [n for n in range(2, nodes + 1) if nodes % n == 0] if kind == "hsdp" else [1]
        shares += [
            {"kind": kind, "replicas": count, "sequence_size": size, "cpu_offload": offload}
            for count in replicas
        ]
    axes: list[list[Change]] = [shares, [{"recompute": kind} for kind in asked.recompute]]
    if base.tokens_per_pack is not None:
        lengths = [max(1, round(base.tokens_per_pack * scale)) for scale in asked.pack_scale]
        axes.append([{"tokens_per_pack": length} for length in dict.fromkeys(lengths)])
    return [axis for axis in axes if axis]


class _Tried:
    """The settings that were tried, each once."""

    def __init__(self, planner: Planner, base: Outcome, progress: Progress) -> None:
        self.planner = planner
        self.progress = progress
        self.total = 1
        own = Candidate(setting=base.setting, outcome=base)
        self.candidates = {base.setting: own}

    @property
    def best(self) -> Candidate:
        return min(self.candidates.values(), key=lambda candidate: candidate.rank)

    def all(self, settings: Sequence[Setting], *, more: bool = False) -> None:
        """Try those that were not tried yet."""
        new = [setting for setting in settings if setting not in self.candidates]
        if not more:
            self.total = len(self.candidates) + len(new)
        for setting in new:
            self.progress(len(self.candidates), max(self.total, len(self.candidates) + 1))
            self.candidates[setting] = self._try(setting)

    def micro_batches(self, counts: Sequence[int]) -> None:
        """Other numbers of micro-batches of the best setting."""
        best = self.best.setting
        pair = [self._outcome(replace(best, accumulate=count)) for count in (1, 2)]
        if pair[0] is None or pair[1] is None:
            return
        for count in counts:
            outcome = self.planner.scale(pair[0], pair[1], count)
            self.candidates[outcome.setting] = Candidate(setting=outcome.setting, outcome=outcome)

    def _outcome(self, setting: Setting) -> Outcome | None:
        if setting not in self.candidates:
            self.candidates[setting] = self._try(setting)
        return self.candidates[setting].outcome

    def _try(self, setting: Setting) -> Candidate:
        try:
            return Candidate(setting=setting, outcome=self.planner.look(setting))
        except MllmNpuError as error:
            # It is a row of the table, not the end of the search.
            return Candidate(setting=setting, outcome=None, refused=" ".join(str(error).split()))
