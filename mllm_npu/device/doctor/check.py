"""One row of an examination, and what many rows say together; needs no torch."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mllm_npu.errors import MllmNpuError

State = Literal["good", "notice", "bad"]
STATES: tuple[State, ...] = ("good", "notice", "bad")  # each worse than the one before

FAULTS = (
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    MllmNpuError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    subprocess.SubprocessError,
)
"""What a look at a machine in any condition may raise; a fault becomes a row, never a traceback."""
_MAX_FAULT = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One row of the examination.

    Args:
        name: what was looked at.
        state: good, notice (works, could be better) or bad (something will fail).
        found: what is, in words and figures.
        advice: what to do; empty where nothing needs doing.
        figures: what was measured, for machines; names end in the unit.
        is_aside: whether it does not concern this machine; shown only when every row is asked for.
    """

    name: str
    state: State = "good"
    found: str
    advice: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    is_aside: bool = False


Examine = Callable[[], Check | Sequence[Check]]


def examine(name: str, look: Examine, *, state: State = "notice") -> tuple[Check, ...]:
    """The rows a look gives; where the look itself fails, one row that says so.

    Args:
        name: of the row a failure becomes.
        look: what may fail.
        state: how much a failure matters.
    """
    try:
        found = look()
    except FAULTS as error:
        return (fault(name, error, state=state),)
    return (found,) if isinstance(found, Check) else tuple(found)


def fault(name: str, error: BaseException, *, state: State = "notice") -> Check:
    """The row for a look that failed."""
    said = " ".join(str(error).split())[:_MAX_FAULT] or "without a message"
    return Check(
        name=name,
        state=state,
        found=f"could not be looked at: {type(error).__name__}: {said}",
        advice="mend what the message names; where it names nothing, report it with this row",
    )


def worst(checks: Iterable[Check]) -> State:
    """The state of the row that is in the worst state; good without rows."""
    return max((check.state for check in checks), key=STATES.index, default="good")


def verdict(checks: Sequence[Check]) -> str:
    """What all rows say together, in one line."""
    bad = [check.name for check in checks if check.state == "bad"]
    notices = sum(check.state == "notice" for check in checks)
    looked = f"{_count(len(checks), 'check')}, {_count(notices, 'notice')}"
    if bad:
        return f"Not ready: {', '.join(bad)} must be mended first ({looked}, {len(bad)} bad)."
    if notices:
        return f"Ready, and could be better: {looked}, nothing bad."
    return f"Ready: {looked}, nothing bad."


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def as_report(checks: Sequence[Check]) -> dict[str, Any]:
    """All rows as plain values for one JSON object: ``verdict``, ``summary``, ``checks``."""
    rows = [dataclasses.asdict(check) | {"figures": dict(check.figures)} for check in checks]
    return {"verdict": worst(checks), "summary": verdict(checks), "checks": rows}


def read_checks(report: Mapping[str, Any]) -> tuple[Check, ...]:
    """The rows of what ``as_report`` gave.

    Raises:
        LookupError: it has no rows.
        TypeError: a row is not one of ours.
    """
    return tuple(Check(**row) for row in report["checks"])
