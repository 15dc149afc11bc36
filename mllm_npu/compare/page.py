"""A comparison as one self-contained HTML page with its pictures."""

from __future__ import annotations

from pathlib import Path

from mllm_npu.compare.curves import HEIGHT, WIDTH, Chart, draw_errors
from mllm_npu.compare.parity import Parity
from mllm_npu.compare.recording import Kind
from mllm_npu.compare.report import describe_place, worst_rows
from mllm_npu.errors import DataError

TEMPLATE = Path(__file__).with_name("parity.html")
_WORST = 40
_CHARTS: tuple[tuple[str, str, tuple[Kind, ...]], ...] = (
    ("Forward", "Outputs of modules in the order in which they were computed.", ("output",)),
    (
        "Backward",
        "Gradients that reach the outputs of modules, in the order of the backward pass.",
        ("output_grad",),
    ),
    (
        "Parameters",
        "Gradients of parameters, in the order of the backward pass.",
        ("parameter_grad",),
    ),
    (
        "Each module alone",
        "Outputs of modules that were given the inputs of side A: the error of each is its own.",
        ("own_output",),
    ),
    (
        "Each module alone, backward",
        "Gradients of inputs and parameters, from inputs and output gradient of side A.",
        ("own_input_grad", "own_parameter_grad"),
    ),
    ("Updates", "What all updates together have changed of each matrix.", ("change",)),
)


def render_page(parity: Parity) -> str:
    """The page as one HTML text."""
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 only a page needs it

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["exponent"] = lambda value: f"{value:.1e}"
    environment.filters["place"] = describe_place
    comparison = parity.comparison
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        verdict=parity.verdict,
        lines=parity.verdict.lines(),
        a=comparison.recording.facts,
        b=comparison.facts,
        charts=_draw(parity),
        worst=worst_rows(parity, _WORST),
        steps=comparison.steps,
        width=WIDTH,
        height=HEIGHT,
    )


def write_page(path: Path, parity: Parity) -> None:
    """Write the page under a temporary name, then rename it.

    Raises:
        DataError: it cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(render_page(parity), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise DataError(
            f"The page {path} cannot be written: {error}. Give a file in a folder that can be "
            "written, with room."
        ) from error


def _draw(parity: Parity) -> list[tuple[str, str, Chart]]:
    rows = parity.comparison.rows + parity.comparison.own_rows
    first = None if parity.verdict.first is None else parity.verdict.first.row
    drawn = []
    for title, note, kinds in _CHARTS:
        chosen = [row for row in rows if row.event.kind in kinds]
        chart = draw_errors(chosen, describe=describe_place, first=first)
        if chart is not None:
            drawn.append((title, note, chart))
    return drawn
