"""Conversations become instruction rows; pictures go where the text says."""

import base64
import json
from random import Random

import pytest

from mllm_npu.data.convert.chat_record import ChatRecord
from mllm_npu.data.row import Row
from mllm_npu.data.tasks.instruction import Instruction
from mllm_npu.errors import SkipSample
from mllm_npu.processing.conversation import DrawnImage, ReadImage, Text

KIND = ChatRecord()


def llava(*values, **entries):
    speakers = ("human", "gpt") * len(values)
    said = [{"from": who, "value": value} for who, value in zip(speakers, values, strict=False)]
    return {"conversations": said, **entries}


def convert(record, pictures):
    members = KIND.to_members(record, pictures)
    return list(members)[:-1], json.loads(members["json"])


def test_llava(pictures, album):
    record = llava("<image>\nWhat is it?", "A red picture.", id="c1", image="a.jpg")
    assert KIND.recognises(record)
    names, values = convert(record, pictures)
    assert names == ["0.jpg"]
    assert values == {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image", "image": "0.jpg"},
                    {"type": "text", "text": "What is it?"},
                ],
            },
            {"role": "assistant", "content": "A red picture."},
        ],
        "meta": {"id": "c1"},
    }


def test_the_row_is_read_by_the_task_and_pictures_of_the_assistant_are_drawn(pictures):
    record = llava("Draw <image> in green.", "<image>", image=["a.jpg", "b.png"])
    row = Row(key="a", members=KIND.to_members(record, pictures))
    asked, answered = Instruction().to_conversation(row, Random(0)).turns
    assert [type(part) for part in asked.parts] == [Text, ReadImage, Text]
    assert [type(part) for part in answered.parts] == [DrawnImage]


def test_a_picture_without_a_place_goes_before_the_first_question(pictures):
    record = llava("What is it?", "Red.", "Sure?", "Yes.", image="a.jpg", system="Be brief.")
    names, values = convert(record, pictures)
    roles = [message["role"] for message in values["messages"]]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    assert values["messages"][1]["content"][0] == {"type": "image", "image": "0.jpg"}
    assert values["messages"][3]["content"] == "Sure?"
    assert names == ["0.jpg"]


def test_sharegpt_with_several_pictures(pictures):
    record = {
        "messages": [
            {"role": "user", "content": "<image>Compare with <image>."},
            {"role": "assistant", "content": "Greener."},
        ],
        "images": ["a.jpg", "b.png"],
    }
    names, values = convert(record, pictures)
    assert names == ["0.jpg", "1.png"]
    assert [part.get("image") for part in values["messages"][0]["content"]] == [
        "0.jpg",
        None,
        "1.png",
        None,
    ]


def test_openai_with_files_data_urls_and_the_list_of_pictures(pictures, album):
    url = "data:image/png;base64," + base64.b64encode((album / "b.png").read_bytes()).decode()
    content = [
        {"type": "image_url", "image_url": {"url": "a.jpg"}},
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "image"},
        {"type": "text", "text": "Which colours?"},
    ]
    record = {
        "messages": [
            {"role": "user", "content": content},
            {"role": "assistant", "content": "Three."},
        ],
        "images": ["c.webp"],
    }
    names, values = convert(record, pictures)
    assert names == ["0.jpg", "1.png", "2.webp"]
    images = [part.get("image") for part in values["messages"][0]["content"]]
    assert images == ["0.jpg", "1.png", "2.webp", None]


def test_a_list_that_repeats_the_named_pictures_is_not_a_second_set(pictures):
    record = {
        "messages": [
            {"role": "user", "content": [{"type": "image", "image": "a.jpg"}, "What?"]},
            {"role": "assistant", "content": "Red."},
        ],
        "images": ["a.jpg"],
    }
    assert convert(record, pictures)[0] == ["0.jpg"]
    record["images"] = ["b.png"]
    with pytest.raises(SkipSample, match="0 places, 1 pictures"):
        convert(record, pictures)


def test_cauldron_rows_with_bytes(pictures, album):
    record = {
        "images": [{"bytes": (album / "a.jpg").read_bytes(), "path": None}],
        "texts": [{"user": "What?", "assistant": "Red.", "source": "x"}],
    }
    assert KIND.recognises(record)
    names, values = convert(record, pictures)
    assert names == ["0.jpg"]
    assert [message["role"] for message in values["messages"]] == ["user", "assistant"]


def test_a_conversation_without_pictures(pictures):
    assert convert(llava("Hi", "Hello", images=[]), pictures)[0] == []


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (llava("<image>What?", "Red."), "1 places, 0 pictures"),
        (llava("<image><image>?", "Red.", image="a.jpg"), "2 places, 1 pictures"),
        (llava("What?", "Red.", image=["a.jpg", "b.png"]), "0 places, 2 pictures"),
        (llava("What?"), "no answer to learn"),
        (llava("<image>What?", "Red.", image="https://x.org/a.jpg"), "on the network"),
        (llava("<image>What?", "Red.", image="../x.jpg"), "outside"),
        (llava("What?", "", image="a.jpg"), "turn empty"),
        ({"conversations": [{"from": "gpt", "value": "Hi"}], "image": "a.jpg"}, "no question"),
        ({}, "conversation empty"),
    ],
)
def test_what_does_not_fit_together_is_refused(pictures, record, reason):
    with pytest.raises(SkipSample, match=reason):
        convert(record, pictures)


def test_lists_of_texts_are_another_kind():
    assert not KIND.recognises({"conversations": ["q", "a"]})
    assert not KIND.recognises({"messages": []})
    assert KIND.recognises({"conversations": {"from": ["human"], "value": ["Hi"]}})
