"""The page of a comparison: all tasks at a glance, then the examples on which the two part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mllm_npu.evaluate.compare import Comparison, Pair, TaskComparison, describe_counts
from mllm_npu.evaluate.compare_records import RecordLine
from mllm_npu.evaluate.compare_table import format_p, format_signed
from mllm_npu.evaluate.page import Tile, data_url
from mllm_npu.evaluate.picture_shelf import is_copy
from mllm_npu.evaluate.report import write_text
from mllm_npu.evaluate.template import fill_template

MOST_CARDS = 40
"""Examples of a task that are shown in each direction."""

_NOTABLE = 5e-5
"""Rounding explains smaller differences of a report's number and the mean of scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What one of the two did with an example."""

    reply: str
    understood: str | None
    refused: str | None
    score: float
    drawn: Sequence[Tile]
    num_lost: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """An example on which the two part."""

    example: str
    question: str
    num_shots: int
    answer: str
    read: Sequence[Tile]
    wanted: Sequence[Tile]
    a: Side
    b: Side


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """A task as the page shows it.

    Args:
        task: the comparison.
        notes: what to know about its examples.
        place: of zero, both ends of the interval and the difference on a common axis, percent.
        higher: examples on which B scores higher.
        lower: examples on which B scores lower.
        shows_figures: whether the reports have numbers that are no mean of these scores.
    """

    task: TaskComparison
    notes: Sequence[str]
    place: tuple[float, float, float]
    higher: Sequence[Card]
    lower: Sequence[Card]
    shows_figures: bool


def render_comparison(comparison: Comparison, *, most_cards: int = MOST_CARDS) -> str:
    """The page as one self-contained HTML text.

    Args:
        comparison: of two evaluations.
        most_cards: examples of a task that are shown in each direction.
    """
    folders = (comparison.a.pictures, comparison.b.pictures)
    reach = max(abs(end) for task in comparison.tasks for end in _ends(task)) or 1.0
    views = [
        TaskView(
            task=task,
            notes=describe_counts(task.count()),
            place=_place(task, reach),
            higher=[_card(p, folders) for p in _pick(task.flips(higher=True), most_cards)],
            lower=[_card(p, folders) for p in _pick(task.flips(higher=False), most_cards)],
            shows_figures=_shows_figures(task),
        )
        for task in comparison.tasks
    ]
    name_a, name_b = comparison.names()
    return fill_template(
        "compare.html",
        comparison=comparison,
        name_a=name_a,
        name_b=name_b,
        views=views,
        signed=format_signed,
        p_value=format_p,
    )


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write the page.

    Raises:
        DataError: it cannot be written.
    """
    write_text(path, render_comparison(comparison))


def _ends(task: TaskComparison) -> tuple[float, float, float]:
    return (*task.difference.interval, task.difference.mean)


def _place(task: TaskComparison, reach: float) -> tuple[float, float, float]:
    """Both ends of the interval and the difference, in percent of an axis with 0 at its middle."""
    low, high, mean = (round(50 + 48 * end / reach, 2) for end in _ends(task))
    return low, high, mean


def _shows_figures(task: TaskComparison) -> bool:
    pairs = ((task.figure_a, task.value_a), (task.figure_b, task.value_b))
    return any(figure is not None and abs(figure - value) > _NOTABLE for figure, value in pairs)


def _pick(pairs: Sequence[Pair], most: int) -> Sequence[Pair]:
    """All pairs, or those that differ most; of equal ones some at even distances."""
    if len(pairs) <= most:
        return pairs
    if len({abs(b.score - a.score) for a, b in pairs}) > 1:
        return pairs[:most]
    return [pairs[place * len(pairs) // most] for place in range(most)]


def _card(pair: Pair, folders: Sequence[Path]) -> Card:
    a, b = pair
    return Card(
        example=a.example,
        question="\n".join(text.strip() for text in a.question),
        num_shots=a.num_shots,
        answer=a.answer,
        read=_tiles(a.read or b.read, folders, "shown to the model"),
        wanted=_tiles(a.wanted or b.wanted, folders, "as it should be"),
        a=_side(a, folders),
        b=_side(b, folders),
    )


def _side(line: RecordLine, folders: Sequence[Path]) -> Side:
    drawn = _tiles(line.drawn, folders, "drawn")
    return Side(
        reply=line.reply.strip(),
        understood=line.understood,
        refused=line.refused,
        score=line.score,
        drawn=drawn,
        num_lost=line.num_pictures - len(drawn),
    )


def _tiles(names: Sequence[str], folders: Sequence[Path], caption: str) -> list[Tile]:
    """Copies of pictures that are still there, in either folder."""
    tiles = []
    for name in filter(is_copy, names):
        path = next((f / name for f in folders if (f / name).is_file()), None)
        if path is not None:
            source = data_url(path.read_bytes(), path.suffix.removeprefix("."))
            tiles.append(Tile(source=source, caption=caption))
    return tiles
