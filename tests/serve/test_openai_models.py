"""What the forms take and refuse."""

import pytest
from pydantic import ValidationError

from mllm_npu.serve.openai_models import ChatRequest, PictureRequest

USER = {"role": "user", "content": "hi"}


def chat(**changes):
    return ChatRequest.model_validate({"model": "m", "messages": [USER], **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"frequency_penalty": 0.0, "presence_penalty": 0, "logit_bias": {}, "tools": []},
        {"response_format": {"type": "text"}, "tool_choice": "none"},
        {"metadata": {"a": "b"}, "user": "u", "store": False, "service_tier": "auto"},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "data:x"}]}]},
        {
            "messages": [
                USER,
                {"role": "assistant", "content": "a", "tool_calls": None, "boxes": []},
            ]
        },
        {"seed": 2**62},
    ],
)
def test_what_changes_nothing_is_taken(changes):
    assert chat(**changes).model == "m"


@pytest.mark.parametrize(
    "changes",
    [
        {"tempo": 1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_p": 0},
        {"seed": -1},
        {"seed": 2**63},
        {"seed": 1.5},
        {"stop": [""]},
        {"stop": ["a"] * 17},
        {"n": 0},
        {"stream_options": {"include_usage": True}},
        {"response_format": {"type": "json_object"}},
        {"logit_bias": {"5": 1}},
        {"presence_penalty": 0.1},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": [{"role": "user", "content": [{"type": "audio"}]}]},
        {"messages": [{"role": "user", "content": "\ud800"}]},
        {"model": ""},
    ],
)
def test_what_would_change_something_is_refused(changes):
    with pytest.raises(ValidationError):
        chat(**changes)


@pytest.mark.parametrize(
    ("size", "edges"), [(None, None), ("auto", None), ("12x8", (12, 8)), ("9999x1", (9999, 1))]
)
def test_sizes(size, edges):
    assert PictureRequest(prompt="x", size=size).edges() == edges


@pytest.mark.parametrize("size", ["", "0x4", "4", "4x", "10000x1", "4X4", "-1x4"])
def test_sizes_that_are_none(size):
    with pytest.raises(ValidationError):
        PictureRequest(prompt="x", size=size)


def test_stops():
    assert chat().stops() == ()
    assert chat(stop="a").stops() == ("a",)
    assert chat(stop=["a", "b"]).stops() == ("a", "b")
