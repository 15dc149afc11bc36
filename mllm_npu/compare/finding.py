"""A place where two sides part, and the module that made it so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mllm_npu.compare.comparison import Comparison, Row
from mllm_npu.compare.recording import Call

Direction = Literal["forward", "loss", "backward", "parameter", "update"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A place that is more than rounding apart, and the module that made it so.

    Args:
        module: that is named.
        count: number of its call, 0 where it is called once.
        direction: of the pass.
        detail: what of it; empty for the module as a whole.
        row: the numbers.
        given: largest relative error of what the module was given; None where that is not known.
        is_own: whether the module alone gives this.
        differs_in_weights: whether the two sides have other weights in it.
    """

    module: str
    count: int
    direction: Direction
    detail: str
    row: Row
    given: float | None
    is_own: bool = False
    differs_in_weights: bool = False

    @property
    def name(self) -> str:
        """The module, and its call where it has several."""
        return f"{self.module} (call {self.count})" if self.count else self.module

    def __str__(self) -> str:
        row, difference = self.row, self.row.difference
        parts = [self.name, self.direction]
        parts += [self.detail] if self.detail else []
        if difference.problem:
            parts.append(difference.problem)
        else:
            own = "its own " if self.is_own else ""
            parts.append(
                f"{own}relative error {difference.relative:.1e} over bound {row.bound:.1e}"
            )
        told = ", ".join(parts)
        if self.given is not None:
            what = "its inputs agree" if self.direction == "forward" else "what reaches it agrees"
            told += f"; {what} to {self.given:.1e}"
        return told + ("; its weights differ" if self.differs_in_weights else "")


class Names:
    """Says which module made a difference.

    Args:
        comparison: that has ended.
        weights: names of parameters and buffers that differed from the start.
    """

    def __init__(self, comparison: Comparison, weights: Sequence[str]) -> None:
        self.rows = comparison.rows
        self.weights = weights
        self.calls = {call.index: call for call in comparison.recording.calls}
        self.counts = Counter(call.module for call in comparison.recording.calls)

    def find(self, row: Row) -> Finding:
        """The module behind the first row that is over its bound."""
        kind, call = row.event.kind, self.calls.get(row.event.call)
        if kind == "change":
            return self._named(row, row.event.module, "update", "what updates have changed")
        if kind == "loss":
            return self._named(row, "loss", "loss", row.event.path)
        if call is None:
            return self._named(row, row.event.module, "parameter", "its gradient")
        if kind == "output":
            return self._called(row, call, "forward", "", given=("input",))
        if kind == "input_grad":
            return self._called(row, call, "backward", "", given=("output_grad",))
        if kind == "parameter_grad":
            detail = f"gradient of {row.event.path}"
            return self._called(row, call, "parameter", detail, given=("output_grad",))
        return self._around(row, call)

    def own(self, row: Row) -> Finding:
        """The module that was run alone."""
        call = self.calls[row.event.call]
        kind = row.event.kind
        direction: Direction = "forward" if kind == "own_output" else "backward"
        detail = ""
        if kind == "own_parameter_grad":
            direction, detail = "parameter", f"gradient of {row.event.path}"
        return self._called(row, call, direction, detail, is_own=True)

    def _around(self, row: Row, call: Call) -> Finding:
        """Between modules: what the module around does itself."""
        forward = row.event.kind == "input"
        around = self.calls.get(call.parent)
        detail = f"its own operations {'before' if forward else 'behind'} {call.module}"
        if around is None:
            named = "its input" if forward else "the gradient of its output"
            return self._called(row, call, "forward" if forward else "backward", named)
        return self._called(row, around, "forward" if forward else "backward", detail)

    def _called(
        self,
        row: Row,
        call: Call,
        direction: Direction,
        detail: str,
        *,
        given: tuple[str, ...] = (),
        is_own: bool = False,
    ) -> Finding:
        errors = [
            other.difference.relative
            for other in self.rows
            if other.event.call == call.index and other.event.kind in given
        ]
        return Finding(
            module=call.module,
            count=call.count if self.counts[call.module] > 1 else 0,
            direction=direction,
            detail=detail,
            row=row,
            given=max(errors) if errors else None,
            is_own=is_own,
            differs_in_weights=any(name.startswith(f"{call.module}.") for name in self.weights),
        )

    def _named(self, row: Row, module: str, direction: Direction, detail: str) -> Finding:
        return Finding(
            module=module, count=0, direction=direction, detail=detail, row=row, given=None
        )
