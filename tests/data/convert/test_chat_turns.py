"""Turns are read in all the spellings, and placeholders stay where they stand."""

import pytest

from mllm_npu.data.convert.chat_turns import Image, read_turns, split_placeholders
from mllm_npu.errors import SkipSample


def simple(turns):
    return [(turn.role, turn.parts) for turn in turns]


@pytest.mark.parametrize(
    "listed",
    [
        [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}],
        [{"from": "User", "value": "Hi"}, {"from": "chatgpt", "value": "Hello"}],
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
        [{"user": "Hi", "assistant": "Hello", "source": "vqa"}],
        {"from": ["human", "gpt"], "value": ["Hi", "Hello"]},
        [
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {"role": "assistant", "content": ["Hello"]},
        ],
    ],
)
def test_every_spelling_says_the_same(listed):
    assert simple(read_turns(listed)) == [("user", ("Hi",)), ("assistant", ("Hello",))]


def test_pictures_of_openai_messages():
    content = [
        {"type": "image_url", "image_url": {"url": "a.jpg", "detail": "low"}},
        {"type": "image_url", "image_url": "b.png"},
        {"type": "image", "image": "c.webp"},
        {"type": "image", "image": None, "text": None},
        {"type": "image"},
        {"type": "text", "text": "What?", "image": None},
    ]
    [turn] = read_turns([{"role": "user", "content": content}])
    assert turn.parts == (
        Image(reference="a.jpg"),
        Image(reference="b.png"),
        Image(reference="c.webp"),
        Image(),
        Image(),
        "What?",
    )


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<image>\nWhat is it?", [Image(), "What is it?"]),
        ("What is it?\n<image>", ["What is it?", Image()]),
        ("Is <image> the same as <image> ?", ["Is ", Image(), " the same as ", Image(), " ?"]),
        ("<image><image>", [Image(), Image()]),
        ("<image>\n\n<image>\nGo", [Image(), Image(), "Go"]),
        ("no picture\n", ["no picture\n"]),
    ],
)
def test_placeholders_stay_where_they_stand(text, parts):
    assert list(split_placeholders(text)) == parts


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        (None, "conversation empty"),
        ([], "conversation empty"),
        ("text", "conversation empty"),
        ({"from": ["human"], "value": []}, "is not a list"),
        ({"from": "human"}, "is not a list"),
        (["Hi"], "turn is not an object"),
        ([{"from": "tool", "value": "x"}], "role not known: 'tool'"),
        ([{"value": "x"}], "role not known: None"),
        ([{"from": "human", "value": ""}], "turn empty"),
        ([{"role": "assistant", "content": None}], "turn empty"),
        ([{"role": "user", "content": [{"type": "audio"}]}], "unknown type: audio"),
        ([{"role": "user", "content": [5]}], "unknown type: 5"),
    ],
)
def test_what_cannot_be_understood_is_refused(listed, reason):
    with pytest.raises(SkipSample, match=reason):
        read_turns(listed)
