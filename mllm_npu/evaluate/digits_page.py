"""Lay out what the page of the digits world shows: drawn digits, redrawn scans, confusions."""

from __future__ import annotations

from collections.abc import Sequence

from mllm_npu.data.worlds.digit_words import NUMBERS
from mllm_npu.evaluate.page import (
    Confusion,
    Gallery,
    Tile,
    TileRow,
    count_confusions,
    make_tile,
)
from mllm_npu.evaluate.real_digits import Redrawn, Scans
from mllm_npu.evaluate.runner import TaskResult
from mllm_npu.evaluate.task import Record

NUM_DIGITS = 10
_ROW = 8
_NUM_REDRAWN = 24


def drawn_gallery(real: Scans, drawn: TaskResult) -> Gallery:
    """Each digit: real training scans beside drawings, the first ones of each, not picked."""
    rows = []
    for digit in range(NUM_DIGITS):
        scans = [p for p, d in zip(real.pictures, real.digits, strict=True) if d == digit]
        records = [record for record in drawn.records if record.example.answer == str(digit)]
        rows.append(
            TileRow(
                label=str(digit),
                real=[make_tile(picture, f"real {digit}") for picture in scans[:_ROW]],
                drawn=_tiles_of(records[:_ROW]),
            )
        )
    return Gallery(
        title="Drawn digits beside real ones",
        note=(
            "Drawn from wordings that never occur in training, each with its own noise; the first "
            "ones, not picked. A red frame means that the judge saw another digit."
        ),
        real_label="real training scans",
        drawn_label="drawn by the model",
        rows=rows,
    )


def redrawn_gallery(redrawn: Redrawn) -> Gallery:
    """Held-out scans beside what came back, the first ones."""
    before = [make_tile(picture, "held-out scan") for picture in redrawn.scans.pictures]
    after = [
        make_tile(picture, f"redrawn, judged {seen}", is_wrong=score < 1)
        for picture, seen, score in zip(redrawn.pictures, redrawn.seen, redrawn.scores, strict=True)
    ]
    starts = range(0, min(len(before), _NUM_REDRAWN), _ROW)
    return Gallery(
        title="Reconstructions",
        note="Held-out scans through vision encoder and image decoder; the first ones, not picked.",
        real_label="held-out scans",
        drawn_label="redrawn",
        rows=[
            TileRow(label="", real=before[start : start + _ROW], drawn=after[start : start + _ROW])
            for start in starts
        ],
    )


def reading_confusion(reading: TaskResult) -> Confusion:
    """What a scan shows, and what the model said."""
    return Confusion(
        title="Reading",
        row_label="what the scan shows",
        column_label="what the model said",
        labels=[str(digit) for digit in range(NUM_DIGITS)],
        counts=count_confusions(
            [NUMBERS.index(record.example.answer) for record in reading.records],
            [_number_of(record.understood or "") for record in reading.records],
            NUM_DIGITS,
        ),
    )


def drawing_confusion(drawn: TaskResult) -> Confusion:
    """What was asked for, and what the judge saw."""
    return Confusion(
        title="Drawing",
        row_label="what was asked for",
        column_label="what the judge saw",
        labels=[str(digit) for digit in range(NUM_DIGITS)],
        counts=count_confusions(
            [int(record.example.answer) for record in drawn.records],
            [digit_of(record) for record in drawn.records],
            NUM_DIGITS,
        ),
    )


def digit_of(record: Record) -> int | None:
    """The digit a judge saw in a drawing, None where there was none."""
    understood = record.understood or ""
    return int(understood) if understood.isdigit() else None


def _number_of(word: str) -> int | None:
    return NUMBERS.index(word) if word in NUMBERS else None


def _tiles_of(records: Sequence[Record]) -> list[Tile]:
    return [
        make_tile(
            record.reply.pictures[0],
            f"asked for {record.example.answer}, judged {record.understood}",
            is_wrong=record.score < 1,
        )
        for record in records
        if record.reply.pictures
    ]
