"""Edit records: a picture, what to change, and the changed picture; one turn or several.

The spellings are those of SEED-Data-Edit (``source_image``, ``target_image``, ``instruction``; in
its multi-turn part ``source_image``, ``instruction_1``, ``edit_image_1``, ``instruction_2``, ...)
and of other published sets of edits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mllm_npu.data.convert.picture_source import PictureSource, first_of
from mllm_npu.data.convert.record_kind import PictureMembers, Record, RecordKind, encode_json
from mllm_npu.errors import SkipSample

_SOURCES = (
    "source_image", "source", "source_img", "src_img", "original_image", "input_image", "input_img",
)  # fmt: skip
_TARGETS = (
    "target_image", "target", "target_img", "edited_image", "edited_img", "edit_image",
    "output_image", "output_img",
)  # fmt: skip
_INSTRUCTIONS = ("instruction", "edit_prompt", "edit_instruction", "edit", "prompt")
_TURNS = ("turns", "rounds")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    instruction: Any
    target: Any


class EditRecord(RecordKind):
    """``{"source_image": "a.jpg", "target_image": "b.jpg", "instruction": "remove the car"}``."""

    name = "edit"
    aliases = ("seed-data-edit",)
    summary = "SEED-Data-Edit jsonl: source, target and instruction, one turn or several"

    def recognises(self, record: Record) -> bool:
        """A source and at least one target."""
        return first_of(record, _SOURCES) is not None and any(
            turn.target is not None for turn in _turns(record)
        )

    def to_members(self, record: Record, pictures: PictureSource) -> dict[str, bytes]:
        """``source.*`` and ``target.*`` of one turn, ``0.*``, ``1.*``, ... of several."""
        source = first_of(record, _SOURCES)
        if source is None:
            raise SkipSample("source picture missing")
        turns = list(_turns(record))
        if not turns:
            raise SkipSample("target picture missing")
        for number, turn in enumerate(turns, start=1):
            if not isinstance(turn.instruction, str) or not turn.instruction.strip():
                raise SkipSample(f"instruction missing: turn {number}")
            if turn.target is None:
                raise SkipSample(f"target picture missing: turn {number}")
        if len(turns) == 1:
            return _single(record, source, turns[0], pictures)
        numbered = PictureMembers(pictures=pictures)
        values = {
            "source": numbered.add(source),
            "turns": [
                {"instruction": turn.instruction.strip(), "target": numbered.add(turn.target)}
                for turn in turns
            ],
        }
        return {**numbered.members(), "json": encode_json(values, record=record)}


def _single(record: Record, source: Any, turn: _Turn, pictures: PictureSource) -> dict[str, bytes]:
    before, after = pictures.load(source), pictures.load(turn.target)
    values = {"instruction": turn.instruction.strip()}
    return {
        f"source.{before.extension}": before.data,
        f"target.{after.extension}": after.data,
        "json": encode_json(values, record=record),
    }


def _turns(record: Record) -> Iterator[_Turn]:
    """The turns of a record; those that tables fill with nothing on both sides are none."""
    listed = first_of(record, _TURNS)
    if isinstance(listed, list):
        entries = [entry if isinstance(entry, dict) else {} for entry in listed]
        yield from (_turn_of(entry) for entry in entries)
        return
    single = _turn_of(record)
    if single.target is not None:
        yield single
        return
    numbers = {name.rpartition("_")[2] for name in record if name.startswith("instruction_")}
    for number in sorted((n for n in numbers if n.isdecimal()), key=int):
        targets = tuple(f"{name}_{number}" for name in _TARGETS)
        turn = _Turn(
            instruction=first_of(record, (f"instruction_{number}",)),
            target=first_of(record, targets),
        )
        if turn.instruction is not None or turn.target is not None:
            yield turn


def _turn_of(record: Record) -> _Turn:
    return _Turn(instruction=first_of(record, _INSTRUCTIONS), target=first_of(record, _TARGETS))
