"""Drawing and changing, without a browser."""

import asyncio

import pytest

from mllm_npu.serve.page.client import Model
from mllm_npu.serve.page.drawing import Drawing, Wish
from mllm_npu.serve.page.stream import Draws, Ends, Waits
from mllm_npu.serve.page.trouble import AskError, Trouble
from mllm_npu.serve.page.words import ENGLISH


@pytest.fixture
def draw(run):
    """Draw what is wished for; gives everything that was shown."""

    def draw_all(desk, *, area="draw", stop_after=None, **wish):
        drawing = Drawing(desk, ENGLISH, area=area)
        asked = Wish(**({"model": "m", "prompt": "a house", "seed": "5"} | wish))

        async def collect():
            if stop_after is not None:
                loop = asyncio.get_running_loop()
                loop.call_later(stop_after, drawing.stop, "session")
            made = drawing.make(asked, key="mine", session="session")
            return [shown async for shown in made]

        return run(collect())

    return draw_all


def test_pictures_come_as_they_are_drawn_in_the_order_of_their_seeds(make_desk, draw, data_url):
    first, second = data_url(color="red"), data_url(color="blue")
    script = [Waits(ahead=2), 0.2, Draws(url=second, choice=1), 0.2, Draws(url=first), 0.2]
    desk = make_desk([*script, Ends(reason="length")])
    shown = draw(desk, number=2, steps="4")
    notices = [each.notice for each in shown]
    assert any("2 ahead" in said for said in notices)
    assert any("1 of 2 drawn" in said for said in notices)
    assert shown[-1].captions == ("Seed 5", "Seed 6")
    assert shown[-1].notice == ""
    assert ("Seed 6",) in [each.captions for each in shown]
    (request,) = desk.controller.requests
    assert (request["n"], request["image_steps"], request["images"]) == (2, 4, "force")
    assert desk.controller.keys == ["mine"]


def test_a_change_sends_its_picture(make_desk, draw, data_url, png, tmp_path):
    desk = make_desk([Draws(url=data_url())])
    (tmp_path / "a.png").write_bytes(png())
    shown = draw(desk, area="edit", picture=str(tmp_path / "a.png"), image_guidance="1.5")
    assert len(shown[-1].pictures) == 1
    (request,) = desk.controller.requests
    assert [part["type"] for part in request["messages"][0]["content"]] == ["image_url", "text"]
    assert request["image_guidance"] == 1.5


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"model": ""}, ENGLISH.no_model),
        ({"prompt": "  "}, ENGLISH.nothing_asked),
        ({"area": "edit"}, ENGLISH.no_picture),
        ({"guidance": "much"}, "Guidance: give a number"),
        ({"model": "reader"}, "reader makes no pictures"),
        ({"picture": "/nowhere.png"}, "This file is no picture"),
    ],
)
def test_what_cannot_be_drawn_is_told(make_desk, draw, run, wish, words):
    desk = make_desk(models=[Model(name="reader", draws=False)])
    run(desk.models.look())
    (shown,) = draw(desk, **wish)
    assert words in shown.notice
    assert desk.controller.requests == []


def test_trouble_is_told_and_what_is_drawn_stays(make_desk, draw, data_url):
    desk = make_desk([Draws(url=data_url()), AskError(Trouble.FAILED, "no memory")])
    shown = draw(desk, number=2)
    assert len(shown[-1].pictures) == 1
    assert "no memory" in shown[-1].notice


def test_a_stop_is_told_and_closes_the_stream(make_desk, draw, data_url):
    desk = make_desk([Draws(url=data_url()), 60.0])
    shown = draw(desk, number=2, stop_after=0.3)
    assert "Stopped." in shown[-1].notice
    assert len(shown[-1].pictures) == 1
    assert desk.controller.open == 0


def test_nothing_drawn_is_told(make_desk, draw):
    assert ENGLISH.nothing_said in draw(make_desk([Ends(reason="stop")]))[-1].notice


def test_one_at_a_time(make_desk, draw):
    desk = make_desk()
    with desk.running.begin("session", "draw"):
        assert draw(desk) == []
