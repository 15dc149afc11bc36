"""Say whether two sides agree, and else where they part and which modules are guilty."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mllm_npu.compare.comparison import Comparison, Row, StepRow
from mllm_npu.compare.finding import Finding, Names
from mllm_npu.compare.recording import Recording

_SHOWN = 4
"""Names that are told; of more their number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a comparison says.

    Args:
        first: where the sides part, by the order of side A; what is no number comes before all.
        guilty: modules that by themselves give something else, in the order of their calls; of
            modules inside each other the innermost.
        steps: updates whose numbers are apart.
        is_isolated: whether modules were run alone.
        unlike: modules that did not run alone, because they were given other shapes on side B.
        weights: names of parameters and buffers that differ before anything was computed.
        only_a: modules that only side A has called.
        only_b: modules that only side B has called.
        closest: what is nearest to its bound.
        num_compared: tensors.
    """

    first: Finding | None
    guilty: tuple[Finding, ...]
    steps: tuple[StepRow, ...]
    is_isolated: bool
    unlike: tuple[str, ...]
    weights: tuple[str, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    closest: Row | None
    num_compared: int

    @property
    def agrees(self) -> bool:
        """Whether all is rounding."""
        return self.first is None and not self.guilty and not self.steps

    def lines(self) -> list[str]:
        """The verdict in words, the most important line first."""
        told = [self._headline()]
        told += [f"guilty by itself: {finding}" for finding in self.guilty[:_SHOWN]]
        if len(self.guilty) > _SHOWN:
            told.append(f"and {len(self.guilty) - _SHOWN} more modules by themselves")
        if self.unlike:
            told.append(f"given other shapes on side B, not run alone: {_some(self.unlike)}")
        elif self.is_isolated and self.first is not None and not self.guilty:
            told.append(
                "no module gives something else by itself: the difference has grown over many, or "
                "comes of other weights"
            )
        told += [
            f"update {row.a.step}: loss {row.a.loss:.6g} and {row.b.loss:.6g}, gradient norm "
            f"{row.a.grad_norm:.6g} and {row.b.grad_norm:.6g}, over bound {row.bound:.1e}"
            for row in self.steps[:1]
        ]
        if self.weights:
            told.append(f"weights that differ from the start: {_some(self.weights)}")
        for side, names in (("A", self.only_a), ("B", self.only_b)):
            if names:
                told.append(f"called on side {side} alone, not compared: {_some(names)}")
        return told

    def _headline(self) -> str:
        if self.first is not None:
            return f"first divergence: {self.first}"
        if self.guilty or self.steps:
            return "the whole agrees, its parts do not"
        near = ""
        if self.closest is not None and self.closest.share > 0:
            event = self.closest.event
            near = f"; nearest to its bound, at {self.closest.share:.0%} of it: {event.module}"
        return f"agree: {self.num_compared} tensors compared{near}"


def judge(comparison: Comparison) -> Verdict:
    """Find where the sides part.

    Args:
        comparison: that has ended.
    """
    recording = comparison.recording
    weights = _other_weights(recording, comparison)
    names = Names(comparison, weights)
    rows, own = comparison.rows, comparison.own_rows
    over = [row for row in rows if row.is_over]
    broken = [row for row in over if row.difference.is_broken]
    first = next(iter(broken or over), None)
    called_a = {call.module for call in recording.calls}
    called_b = {call.module for call in comparison.calls}
    return Verdict(
        first=None if first is None else names.find(first),
        guilty=tuple(names.own(row) for row in _innermost(own, recording)),
        steps=tuple(row for row in comparison.steps if row.is_over),
        is_isolated=bool(own),
        unlike=tuple(dict.fromkeys(comparison.facts.unlike)),
        weights=tuple(weights),
        only_a=tuple(sorted(called_a - called_b)),
        only_b=tuple(sorted(called_b - called_a)),
        closest=max(rows, key=lambda row: row.share, default=None),
        num_compared=len(rows) + len(own),
    )


def _innermost(own: Iterable[Row], recording: Recording) -> list[Row]:
    """Of the modules that alone are over their bound those without one inside; a row of each."""
    by_call: dict[int, Row] = {}
    for row in own:
        known = by_call.get(row.event.call)
        if row.is_over and (known is None or _weight(row) > _weight(known)):
            by_call[row.event.call] = row
    parents = {call.index: call.parent for call in recording.calls}
    around: set[int] = set()
    for index in by_call:
        parent = parents[index]
        while parent >= 0:
            around.add(parent)
            parent = parents[parent]
    return [by_call[index] for index in sorted(set(by_call) - around)]


def _weight(row: Row) -> tuple[bool, bool, float]:
    """What tells most of a module: no number, then its output, then how far it is over."""
    return row.difference.is_broken, row.event.kind == "own_output", row.share


def _other_weights(recording: Recording, comparison: Comparison) -> list[str]:
    a, b = recording.facts.weights, comparison.facts.weights
    return [name for name in a if a[name] != b.get(name)]


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest
