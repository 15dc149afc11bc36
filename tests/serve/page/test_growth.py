"""Replies grow side by side, are looked at now and then, and end when they are stopped."""

import asyncio

import pytest

from mllm_npu.serve.page import growth as module
from mllm_npu.serve.page.conversation import Box
from mllm_npu.serve.page.growth import Growth, watch
from mllm_npu.serve.page.stream import Draws, Ends, Points, Says, Waits
from mllm_npu.serve.page.trouble import AskError, Trouble

BOX = Box(x0=0.1, y0=0.1, x1=0.9, y1=0.9, label="cat")


async def stream(*events):
    for event in events:
        if isinstance(event, Exception):
            raise event
        if isinstance(event, float):
            await asyncio.sleep(event)
        else:
            yield event


@pytest.fixture
def grow(make_desk, run):
    """Let one reply grow to its end."""

    def grow_one(*events, beheld=None):
        growth = Growth(pictures=make_desk().pictures, beheld=beheld)
        run(growth.read(stream(*events)))
        return growth

    return grow_one


def test_text_and_pictures_are_gathered(grow, data_url):
    grown = grow(
        Waits(ahead=2),
        Says(text="a"),
        Draws(url=data_url(), offset=1),
        Says(text="b"),
        Ends(reason="stop"),
    )
    assert grown.ahead == 2
    assert (grown.reply.text, grown.reply.ending) == ("ab", "stop")
    assert [drawn.offset for drawn in grown.reply.drawn] == [1]
    assert grown.error is None
    assert grown.changes == 5


def test_choices_grow_apart(grow, data_url):
    grown = grow(Draws(url=data_url(), choice=1), Says(text="x", choice=0))
    assert grown.replies[0].text == "x"
    assert len(grown.replies[1].drawn) == 1


def test_boxes_are_drawn_on_what_was_seen(grow, make_desk, png):
    beheld = make_desk().pictures.take_bytes(png((400, 200)))
    reply = grow(Points(boxes=(BOX,)), beheld=beheld).reply
    assert reply.boxes == (BOX,)
    assert (reply.marked.width, reply.marked.height) == (400, 200)
    assert reply.marked != beheld
    assert grow(Points(boxes=(BOX,))).reply.marked is None


def test_trouble_is_noted_and_what_came_before_stays(grow):
    grown = grow(Says(text="half"), AskError(Trouble.CUT, "gone"), Says(text="never"))
    assert (grown.reply.text, grown.error.trouble) == ("half", Trouble.CUT)


def test_a_broken_picture_is_trouble_of_the_server(grow):
    grown = grow(Draws(url="data:image/png;base64,AAAA"))
    assert grown.error.trouble is Trouble.FAILED


def look(run, growths, streams, *, stop_after=None):
    """What is seen of the first one's text at each look."""

    async def looks():
        stop, seen = asyncio.Event(), []
        if stop_after is not None:
            asyncio.get_running_loop().call_later(stop_after, stop.set)
        async for grows in watch(growths, streams, stop=stop):
            seen.append((grows, growths[0].reply.text))
        return seen

    return run(looks())


def test_looks_follow_the_changes_and_the_last_one_sees_all(run, make_desk):
    growth = Growth(pictures=make_desk().pictures)
    seen = look(run, [growth], [stream(Says(text="a"), 0.3, Says(text="b"))])
    assert [text for _, text in seen if text] == ["a", "ab"]
    assert [grows for grows, _ in seen][-2:] == [True, False]


def test_many_changes_need_few_looks(run, make_desk):
    growth = Growth(pictures=make_desk().pictures)
    seen = look(run, [growth], [stream(*(Says(text="x") for _ in range(1000)))])
    assert len(seen) < 20
    assert seen[-1] == (False, "x" * 1000)


def test_time_alone_is_a_reason_to_look(run, make_desk, monkeypatch):
    monkeypatch.setattr(module, "ALIVE_SECONDS", 0.05)
    growth = Growth(pictures=make_desk().pictures)
    assert len(look(run, [growth], [stream(0.5)])) > 3


def test_a_stop_closes_what_streams_and_keeps_what_is_there(run, make_desk):
    growth = Growth(pictures=make_desk().pictures)
    closed = []

    async def endless():
        try:
            yield Says(text="a")
            await asyncio.sleep(60)
        finally:
            closed.append(True)

    seen = look(run, [growth], [endless()], stop_after=0.2)
    assert seen[-1] == (False, "a")
    assert closed == [True]


def test_whoever_stops_looking_closes_it_too(run, make_desk):
    growth = Growth(pictures=make_desk().pictures)
    closed = []

    async def endless():
        try:
            while True:
                yield Says(text="a")
                await asyncio.sleep(0.01)
        finally:
            closed.append(True)

    async def look_once():
        looks = watch([growth], [endless()], stop=asyncio.Event())
        await anext(looks)
        await anext(looks)
        await looks.aclose()

    run(look_once())
    assert closed == [True]


def test_two_grow_at_the_same_time_and_one_that_fails_leaves_the_other(run, make_desk):
    pair = [Growth(pictures=make_desk().pictures) for _ in range(2)]
    streams = [stream(Says(text="a"), AskError(Trouble.BUSY, "")), stream(0.2, Says(text="b"))]
    look(run, pair, streams)
    assert [growth.reply.text for growth in pair] == ["a", "b"]
    assert [growth.error is None for growth in pair] == [False, True]
