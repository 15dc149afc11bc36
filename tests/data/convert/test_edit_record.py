"""Edits of one turn and of several, in the spellings of published sets."""

import json
from random import Random

import pytest

from mllm_npu.data.convert.edit_record import EditRecord
from mllm_npu.data.row import Row
from mllm_npu.data.tasks.edit import Edit
from mllm_npu.errors import SkipSample
from mllm_npu.processing.conversation import Text

KIND = EditRecord()


def pictures_by_turn(members):
    """How many pictures each turn of training shows or draws."""
    talk = Edit().to_conversation(Row(key="a", members=members), Random(0))
    return [
        (turn.role, sum(not isinstance(part, Text) for part in turn.parts)) for turn in talk.turns
    ]


@pytest.mark.parametrize(
    ("source", "target", "instruction"),
    [
        ("source_image", "target_image", "instruction"),
        ("source_img", "target_img", "instruction"),
        ("original_image", "edited_image", "edit_prompt"),
        ("input_image", "output_image", "prompt"),
        ("source", "target", "edit"),
    ],
)
def test_an_edit_of_one_turn_is_read_by_the_task(pictures, album, source, target, instruction):
    record = {source: "a.jpg", target: "b.png", instruction: " make it green ", "id": "x"}
    assert KIND.recognises(record)
    members = KIND.to_members(record, pictures)
    assert list(members) == ["source.jpg", "target.png", "json"]
    assert members["target.png"] == (album / "b.png").read_bytes()
    assert json.loads(members["json"]) == {"instruction": "make it green", "meta": {"id": "x"}}
    assert pictures_by_turn(members) == [("user", 1), ("assistant", 1)]


SEVERAL = {
    "source": "0.jpg",
    "turns": [
        {"instruction": "make it green", "target": "1.png"},
        {"instruction": "make it blue", "target": "2.webp"},
    ],
}


@pytest.mark.parametrize(
    "record",
    [
        {  # SEED-Data-Edit, part 3; a table fills the turns that a row lacks with nothing
            "source_image": "a.jpg",
            "instruction_1": "make it green",
            "edit_image_1": "b.png",
            "instruction_2": "make it blue",
            "edit_image_2": "c.webp",
            "instruction_3": None,
            "edit_image_3": None,
        },
        {
            "source_image": "a.jpg",
            "turns": [
                {"instruction": "make it green", "target_image": "b.png"},
                {"instruction": "make it blue", "target": "c.webp"},
            ],
        },
    ],
)
def test_an_edit_of_several_turns(pictures, record):
    assert KIND.recognises(record)
    members = KIND.to_members(record, pictures)
    assert list(members) == ["0.jpg", "1.png", "2.webp", "json"]
    assert json.loads(members["json"]) == SEVERAL
    drawn = ("assistant", 1)
    assert pictures_by_turn(members) == [("user", 1), drawn, ("user", 0), drawn]


def test_turns_are_ordered_by_number_not_by_letter(pictures):
    record = {"source_image": "a.jpg"}
    for number in (10, 2, 1):
        record |= {f"instruction_{number}": f"step {number}", f"edit_image_{number}": "b.png"}
    values = json.loads(KIND.to_members(record, pictures)["json"])
    assert [turn["instruction"] for turn in values["turns"]] == ["step 1", "step 2", "step 10"]
    assert {turn["target"] for turn in values["turns"]} == {"1.png"}


def test_one_numbered_turn_is_a_single_edit(pictures):
    record = {"source_image": "a.jpg", "instruction_1": "go", "edit_image_1": "b.png"}
    assert list(KIND.to_members(record, pictures)) == ["source.jpg", "target.png", "json"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"target_image": "b.png", "instruction": "x"}, "source picture missing"),
        ({"source_image": "a.jpg", "instruction": "x"}, "target picture missing"),
        ({"source_image": "a.jpg", "target_image": "b.png"}, "instruction missing"),
        ({"source_image": "a.jpg", "target_image": "b.png", "instruction": ["x"]}, "instruction"),
        ({"source_image": "a.jpg", "target_image": "no.png", "instruction": "x"}, "file missing"),
        (
            {"source_image": "a.jpg", "instruction_1": "x", "edit_image_1": None},
            "target picture missing: turn 1",
        ),
        (
            {
                "source_image": "a.jpg",
                "instruction_1": "x",
                "edit_image_1": "b.png",
                "edit_image_2": "c.webp",
                "instruction_2": None,
            },
            "instruction missing: turn 2",
        ),
        ({"source_image": "a.jpg", "turns": ["x"]}, "instruction missing: turn 1"),
    ],
)
def test_an_incomplete_edit_is_refused(pictures, record, reason):
    with pytest.raises(SkipSample, match=reason):
        KIND.to_members(record, pictures)
