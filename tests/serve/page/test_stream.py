"""Streams: lines become events, and what is broken does no harm."""

import json

import pytest

from mllm_npu.serve.page.conversation import Box
from mllm_npu.serve.page.stream import Draws, Ends, Points, Says, Waits, read_events
from mllm_npu.serve.page.trouble import AskError, Trouble


async def lines_of(lines):
    for line in lines:
        yield line


def data(delta, **choice):
    return "data: " + json.dumps({"choices": [{"index": 0, "delta": delta, **choice}]})


def events(run, *lines, end=True):
    return run(read_events(lines_of([*lines, *(["data: [DONE]"] if end else [])])))


def test_a_whole_reply(run):
    image = {"type": "image_url", "image_url": {"url": "data:x"}, "offset": 5}
    box = {"x0": 0.1, "y0": 0.2, "x1": 0.3, "y1": 0.4, "label": "cat"}
    told = events(
        run,
        ": 3 in front",
        "",
        data({"role": "assistant", "content": ""}),
        data({"content": "Hello"}),
        data({"images": [image]}, index=1),
        data({"boxes": [box]}, finish_reason="stop"),
        'data: {"choices": [], "usage": {}}',
    )
    assert told == [
        Waits(ahead=3),
        Says(text="Hello"),
        Draws(url="data:x", offset=5, choice=1),
        Points(boxes=(Box(x0=0.1, y0=0.2, x1=0.3, y1=0.4, label="cat"),)),
        Ends(reason="stop"),
    ]


def test_what_follows_the_end_is_not_read(run):
    assert events(run, data({"content": "a"}), "data: [DONE]", data({"content": "b"})) == [
        Says(text="a")
    ]


def test_a_failure_in_the_stream_is_raised_with_its_words(run):
    failure = {"error": {"message": "It broke.", "type": "server_error"}}
    with pytest.raises(AskError) as caught:
        events(run, data({"content": "a"}), f"data: {json.dumps(failure)}")
    assert (caught.value.trouble, caught.value.said) == (Trouble.FAILED, "It broke.")


def test_a_stream_without_an_end_is_cut(run):
    with pytest.raises(AskError) as caught:
        events(run, data({"content": "a"}), end=False)
    assert caught.value.trouble is Trouble.CUT


@pytest.mark.parametrize(
    "line",
    [
        "data: {",
        "data: 3",
        'data: {"choices": 3}',
        'data: {"choices": [3, null, {"index": "x", "delta": []}]}',
        data({"content": 3, "images": [{"image_url": 4}, 5], "boxes": {"x0": 1}}),
        data({"boxes": [{"x0": 0, "y0": 0, "x1": "a", "y1": 1}, {"x0": float("nan")}]}),
        "event: ping",
        ": still here",
    ],
)
def test_nonsense_is_passed_over(run, line):
    assert events(run, line) == []


def test_boxes_are_brought_into_the_picture(run):
    box = {"x0": 1.5, "y0": 0.5, "x1": -1, "y1": 0.25}
    (told,) = events(run, data({"boxes": [box]}))
    assert told.boxes == (Box(x0=0.0, y0=0.25, x1=1.0, y1=0.5),)
