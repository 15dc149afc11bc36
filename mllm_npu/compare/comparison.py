"""Compare what side B gives, as it comes, with what side A has given; keep the numbers alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mllm_npu.compare.bounds import Bounds
from mllm_npu.compare.difference import Difference, measure
from mllm_npu.compare.recording import OWN, Call, Entry, Event, Facts, Recording, Step

_BACK = ("output_grad", "input_grad", "parameter_grad")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A tensor that both sides gave.

    Args:
        event: where; of side A.
        dtype: of its elements on side A.
        shape: its sizes on side A.
        difference: how far apart the sides are.
        bound: how far apart they may be.
    """

    event: Event
    dtype: str
    shape: tuple[int, ...]
    difference: Difference
    bound: float

    @property
    def is_over(self) -> bool:
        """Whether it is more than rounding."""
        return bool(self.difference.problem) or not self.difference.relative <= self.bound

    @property
    def share(self) -> float:
        """The relative error over its bound."""
        if self.difference.relative == 0:
            return 0.0
        return self.difference.relative / self.bound if self.bound else math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """An update on both sides.

    Args:
        a: numbers of side A.
        b: numbers of side B.
        bound: relative error that loss and gradient norm may have.
    """

    a: Step
    b: Step
    bound: float

    @property
    def loss_error(self) -> float:
        """Relative."""
        return _apart(self.a.loss, self.b.loss)

    @property
    def norm_error(self) -> float:
        """Relative, of the gradient norm."""
        return _apart(self.a.grad_norm, self.b.grad_norm)

    @property
    def is_over(self) -> bool:
        """Whether it is more than rounding."""
        return not max(self.loss_error, self.norm_error) <= self.bound


class Comparison:
    """Listens to a ``Watch`` on side B.

    Args:
        recording: of side A.
        bounds: what is still rounding.
        compute_dtype: in which side B multiplies matrices.

    Attributes:
        calls: of side B, once it has finished.
        facts: of side B, once it has finished.
    """

    def __init__(self, recording: Recording, *, bounds: Bounds, compute_dtype: torch.dtype) -> None:
        self.recording = recording
        self.bounds = bounds
        self.facts = Facts()
        self.calls: list[Call] = []
        self._dtypes = (compute_dtype, _dtype(recording.facts.compute_dtype))
        self._rows: dict[str, Row] = {}
        self._own: dict[str, Row] = {}
        self._only_b: list[Row] = []
        self._total = recording.num_operations
        self._steps = len(recording.facts.steps)
        self._calls = {call.index: call for call in recording.calls}
        self._reached = _gradients_by_module(recording)

    def take(self, event: Event, tensor: Tensor, *, needs_grad: bool = False) -> None:
        """Compare the tensor of an event; see ``Listener``."""
        kind = OWN.get(event.kind, event.kind)
        known = Event(kind=kind, call=-1, module=event.module, count=event.count, path=event.path)
        entry = self.recording.entries.get(known.key)
        if entry is None:
            self._note_alone(event, tensor)
            return
        is_own = event.kind in OWN
        difference = measure(self.recording.tensor(entry), tensor, floor=self._floor(entry))
        if event.kind in ("input", "output") and entry.needs_grad != needs_grad:
            asked = "A" if entry.needs_grad else "B"
            told = difference.problem or f"a gradient is asked of it on side {asked} alone"
            difference = replace(difference, problem=told)
        row = Row(
            event=Event(
                kind=event.kind,
                call=entry.event.call,
                module=entry.event.module,
                count=entry.event.count,
                path=event.path,
            ),
            dtype=entry.dtype,
            shape=entry.shape,
            difference=difference,
            bound=self._bound(event, entry, tensor),
        )
        (self._own if is_own else self._rows)[row.event.key] = row

    def end(self, calls: Sequence[Call], facts: Facts) -> None:
        """Take what is known once side B has finished."""
        self.calls, self.facts = list(calls), facts

    @property
    def rows(self) -> list[Row]:
        """What was compared in the order in which it came on side A.

        What one side alone gave is among them where both have called the module; a gradient of
        zeros is as good as none.
        """
        called = {(call.module, call.count) for call in self.calls}
        rows = []
        for key, entry in self.recording.entries.items():
            event = entry.event
            if key in self._rows:
                rows.append(self._rows[key])
            elif event.kind in _BACK and not entry.norm:
                continue
            elif event.kind in ("input", "output", *_BACK) and (
                event.kind == "parameter_grad" or (event.module, event.count) in called
            ):
                rows.append(_alone(event, entry.dtype, entry.shape, "A"))
        return rows + self._only_b

    @property
    def own_rows(self) -> list[Row]:
        """What modules alone have given, in the order of their calls."""
        return sorted(self._own.values(), key=lambda row: row.event.call)

    @property
    def steps(self) -> list[StepRow]:
        """The updates both sides have made."""
        pairs = zip(self.recording.facts.steps, self.facts.steps, strict=False)
        return [
            StepRow(a=a, b=b, bound=self.bounds.of_numbers(self._dtypes, a.step)) for a, b in pairs
        ]

    def _note_alone(self, event: Event, tensor: Tensor) -> None:
        """A tensor that side A did not give, though it has called the module."""
        call = next(
            (
                call
                for call in self.recording.calls
                if (call.module, call.count) == (event.module, event.count)
            ),
            None,
        )
        is_gradient = event.kind in _BACK or event.kind in OWN
        if call is None or (is_gradient and not bool(tensor.any())):
            return
        known = replace(event, call=call.index)
        dtype, shape = str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)
        self._only_b.append(_alone(known, dtype, shape, "B"))

    def _bound(self, event: Event, entry: Entry, tensor: Tensor) -> float:
        if not entry.norm and not _dtype(entry.dtype).is_floating_point:
            return 0.0
        call = self._calls.get(entry.event.call)
        own = tuple(map(_dtype, call.dtypes)) if call is not None else ()
        dtypes = (*self._dtypes, *own, _dtype(entry.dtype), tensor.dtype)
        if event.kind == "change":
            return self.bounds.of_change(self.bounds.of(dtypes, 2 * self._total), self._steps)
        return self.bounds.of(dtypes, self._operations(event, call))

    def _operations(self, event: Event, call: Call | None) -> int:
        """How many operations lie behind the tensor of an event."""
        if call is None:
            return 2 * self._total if event.kind in _BACK else self._total
        if event.kind in OWN:
            return call.inside if event.kind == "own_output" else 2 * call.inside
        place = call.behind if event.kind in ("output", "output_grad") else call.before
        return 2 * self._total - place if event.kind in _BACK else place

    def _floor(self, entry: Entry) -> float:
        """What the gradient of a bias is summed up from, which may cancel (as under a softmax)."""
        event = entry.event
        if len(entry.shape) > 1 or event.kind not in ("parameter_grad", "own_parameter_grad"):
            return 0.0
        reached = [
            norm
            for count, norm in self._reached.get(event.module, ())
            if event.kind == "parameter_grad" or count == event.count
        ]
        return math.hypot(*reached)


def _gradients_by_module(recording: Recording) -> dict[str, list[tuple[int, float]]]:
    """For each module the norms of the gradients that reached its outputs, with their calls."""
    found: dict[str, list[tuple[int, float]]] = {}
    for entry in recording.entries.values():
        if entry.event.kind == "output_grad":
            found.setdefault(entry.event.module, []).append((entry.event.count, entry.norm))
    return found


def _alone(event: Event, dtype: str, shape: tuple[int, ...], side: str) -> Row:
    difference = Difference(relative=math.inf, problem=f"side {side} alone gave it")
    return Row(event=event, dtype=dtype, shape=shape, difference=difference, bound=0.0)


def _apart(a: float, b: float) -> float:
    if a == b:
        return 0.0
    return abs(b - a) / abs(a) if a else math.inf


def _dtype(name: str) -> torch.dtype:
    return getattr(torch, name)
