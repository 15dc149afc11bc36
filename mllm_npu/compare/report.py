"""Tell a comparison: as a table for the terminal, and as plain values for machines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mllm_npu.compare.comparison import Row
from mllm_npu.compare.finding import Finding
from mllm_npu.compare.parity import Parity
from mllm_npu.compare.recording import Kind

_WORST = 12
_COLUMNS = (
    ("relative", 0),
    ("bound", 0),
    ("max abs", 110),
    ("max rel", 130),
    ("cosine", 120),
    ("dtype", 150),
    ("shape", 140),
)
"""Figures, and from how many columns of the terminal on they are shown."""
_WORDS: dict[Kind, str] = {
    "input": "input",
    "output": "output",
    "loss": "loss",
    "output_grad": "gradient of output",
    "input_grad": "gradient of input",
    "parameter_grad": "gradient of parameter",
    "change": "change by updates",
    "own_output": "alone: output",
    "own_input_grad": "alone: gradient of input",
    "own_parameter_grad": "alone: gradient of parameter",
}


def worst_rows(parity: Parity, count: int = _WORST) -> list[Row]:
    """What is nearest to its bound or beyond it; of a module the worst of each kind."""
    rows = parity.comparison.rows + parity.comparison.own_rows
    found: dict[tuple[str, str], Row] = {}
    for row in rows:
        key = (row.event.module, row.event.kind)
        if key not in found or _rank(row) > _rank(found[key]):
            found[key] = row
    return sorted(found.values(), key=_rank, reverse=True)[:count]


def describe_place(row: Row) -> str:
    """What of the module, in words."""
    event = row.event
    told = _WORDS[event.kind]
    if event.path and event.kind != "change":
        told += f" {event.path.removeprefix(f'{event.module}.')}"
    return told + (f", call {event.count}" if event.count > 1 else "")


def show(parity: Parity, *, width: int = 160) -> RenderableType:
    """What stands on the sides, worst modules and updates for a terminal.

    Args:
        parity: what was found.
        width: columns of the terminal; a narrow one shows fewer figures.
    """
    comparison = parity.comparison
    a, b = comparison.recording.facts, comparison.facts
    told = (
        f"{a.title}: A {a.side} ({a.device}, {a.compute_dtype}), "
        f"B {b.side} ({b.device}, {b.compute_dtype})"
    )
    parts: list[RenderableType] = [Text(told, style="dim")]
    worst = [row for row in worst_rows(parity) if row.share > 0]
    if worst:
        parts.append(_table(worst, width))
    if comparison.steps:
        parts.append(_steps_table(parity))
    return Group(*parts)


def to_json(parity: Parity) -> dict[str, Any]:
    """All numbers as plain values; what JSON has no word for is null."""
    verdict, comparison = parity.verdict, parity.comparison
    a, b = comparison.recording.facts, comparison.facts
    return {
        "agrees": verdict.agrees,
        "verdict": verdict.lines(),
        "first": None if verdict.first is None else _finding(verdict.first),
        "guilty": [_finding(finding) for finding in verdict.guilty],
        "sides": [
            {
                "side": facts.side,
                "device": facts.device,
                "compute_dtype": facts.compute_dtype,
                "ways": facts.ways,
            }
            for facts in (a, b)
        ],
        "run": a.title,
        "weights_that_differ": list(verdict.weights),
        "only_a": list(verdict.only_a),
        "only_b": list(verdict.only_b),
        "updates": [
            {
                "step": row.a.step,
                "loss": [_number(row.a.loss), _number(row.b.loss)],
                "grad_norm": [_number(row.a.grad_norm), _number(row.b.grad_norm)],
                "loss_error": _number(row.loss_error),
                "grad_norm_error": _number(row.norm_error),
                "bound": row.bound,
                "over": row.is_over,
            }
            for row in comparison.steps
        ],
        "rows": [_row(row) for row in comparison.rows + comparison.own_rows],
    }


def _table(rows: Sequence[Row], width: int) -> Table:
    figures = [name for name, least in _COLUMNS if width >= least]
    table = Table(box=None, pad_edge=False, title_justify="left", title_style="dim")
    table.title = "nearest to their bounds or beyond"
    for name in ("module", "what"):
        table.add_column(name, overflow="fold")
    for name in figures:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        told = _figures(row)
        table.add_row(
            Text(row.event.module, style="bold red" if row.is_over else ""),
            describe_place(row),
            *(told[name] for name in figures),
        )
    return table


def _figures(row: Row) -> dict[str, str]:
    gap = row.difference
    return {
        "relative": gap.problem or f"{gap.relative:.1e}",
        "bound": f"{row.bound:.1e}",
        "max abs": _short(gap.max_absolute),
        "max rel": _short(gap.max_relative),
        "cosine": "" if math.isnan(gap.cosine) else f"{gap.cosine:.7f}",
        "dtype": row.dtype,
        "shape": "x".join(map(str, row.shape)),
    }


def _steps_table(parity: Parity) -> Table:
    table = Table(
        title="updates", title_justify="left", title_style="dim", box=None, pad_edge=False
    )
    for name in ("step", "loss A", "loss B", "error", "norm A", "norm B", "error", "bound"):
        table.add_column(name, justify="right")
    for row in parity.comparison.steps:
        table.add_row(
            str(row.a.step),
            f"{row.a.loss:.6g}",
            f"{row.b.loss:.6g}",
            f"{row.loss_error:.1e}",
            f"{row.a.grad_norm:.6g}",
            f"{row.b.grad_norm:.6g}",
            f"{row.norm_error:.1e}",
            f"{row.bound:.1e}",
            style="red" if row.is_over else "",
        )
    return table


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "module": finding.module,
        "call": finding.count or 1,
        "direction": finding.direction,
        "detail": finding.detail,
        "given": None if finding.given is None else _number(finding.given),
        "weights_differ": finding.differs_in_weights,
        **_row(finding.row),
    }


def _row(row: Row) -> dict[str, Any]:
    gap = row.difference
    return {
        "kind": row.event.kind,
        "of": row.event.module,
        "count": row.event.count,
        "path": row.event.path,
        "dtype": row.dtype,
        "shape": list(row.shape),
        "relative": _number(gap.relative),
        "bound": row.bound,
        "max_abs": _number(gap.max_absolute),
        "max_rel": _number(gap.max_relative),
        "cosine": _number(gap.cosine),
        "problem": gap.problem,
        "over": row.is_over,
    }


def _rank(row: Row) -> tuple[bool, float]:
    return bool(row.difference.problem), row.share


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _short(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.1e}"
