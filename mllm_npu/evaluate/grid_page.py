"""Lay drawn pictures out prompt by prompt, with what was found in them, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from mllm_npu.evaluate.page import Gallery, Tile, TileRow, data_url
from mllm_npu.evaluate.picture_shelf import encode_small
from mllm_npu.evaluate.prompt_file import PROMPT, by_prompt
from mllm_npu.evaluate.runner import TaskResult
from mllm_npu.evaluate.task import Record
from mllm_npu.processing.conversation import ReadImage
from mllm_npu.processing.raster import to_pillow

MOST_ROWS = 24
"""Prompts on a page; their pictures make up nearly all of its size."""

MOST_COLUMNS = 8
"""Pictures of a prompt."""


def picture_grid(
    result: TaskResult, *, most_rows: int = MOST_ROWS, most_columns: int = MOST_COLUMNS
) -> Gallery | None:
    """All pictures of a task, a row for each prompt; None where none was drawn.

    Beside the drawn pictures of a row stands what was wanted or shown: the true picture, or the one
    the model was given.

    Args:
        result: of a task.
        most_rows: prompts that are shown; of more, some are taken evenly, not picked.
        most_columns: pictures of a prompt, the first ones.
    """
    prompts = [own for own in by_prompt(result.records).values() if _drawn(own)]
    if not prompts:
        return None
    shown = spread_evenly(prompts, most_rows)
    return Gallery(
        title=result.task.title,
        note=_describe(len(prompts), len(shown), prompts, most_columns),
        real_label="sent or wanted",
        drawn_label="drawn by the model",
        rows=[_make_row(own[:most_columns]) for own in shown],
        shows_captions=True,
    )


def spread_evenly(items: Sequence[list[Record]], most: int) -> list[list[Record]]:
    """All items, or as many as are wanted at even distances from the first on."""
    if len(items) <= most:
        return list(items)
    return [items[number * len(items) // most] for number in range(most)]


def _drawn(records: Sequence[Record]) -> bool:
    return any(record.reply.pictures for record in records)


def _describe(num: int, num_shown: int, prompts: Sequence[Sequence[Record]], columns: int) -> str:
    note = f"{num} rows, all there are." if num > 1 else "All there is."
    if num_shown < num:
        note = f"{num_shown} of {num} rows, at even distances and not picked."
    longest = max(len(own) for own in prompts)
    if longest > columns:
        note += f" Of the {longest} pictures of a prompt the first {columns}."
    if any(record.score <= 0 for own in prompts for record in own if record.reply.pictures):
        note += " Pictures in a red frame have score 0."
    return note


def _make_row(records: Sequence[Record]) -> TileRow:
    first = records[0].example
    wanted = _wanted(records[0])
    return TileRow(
        label=first.facts.get(PROMPT, first.name),
        real=[] if wanted is None else [_tile(wanted, "sent or wanted")],
        drawn=[
            _tile(record.reply.pictures[0], _caption(record), is_wrong=record.score <= 0)
            for record in records
            if record.reply.pictures
        ],
    )


def _wanted(record: Record) -> Image.Image | None:
    if record.example.truth is not None:
        return record.example.truth
    parts = (part for turn in record.example.conversation.turns for part in turn.parts)
    return next((to_pillow(part.picture) for part in parts if isinstance(part, ReadImage)), None)


def _caption(record: Record) -> str:
    return "not understood" if record.understood is None else record.understood


def _tile(picture: Image.Image, caption: str, *, is_wrong: bool = False) -> Tile:
    data, suffix = encode_small(picture)
    return Tile(source=data_url(data, suffix), caption=caption, is_wrong=is_wrong)
