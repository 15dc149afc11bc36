"""Answers are kept as they grow, for one conversation or two at once."""

import asyncio

import pytest

from mllm_npu.serve.page.answering import Answering, Asked
from mllm_npu.serve.page.conversation import Conversation
from mllm_npu.serve.page.settings import Settings
from mllm_npu.serve.page.stream import Ends, Says
from mllm_npu.serve.page.trouble import AskError, Trouble
from mllm_npu.serve.page.words import ENGLISH

CHAT = (Asked(place="chat", model="a"),)
PAIR = (Asked(place="left", model="a"), Asked(place="right", model="b"))


@pytest.fixture
def answer(run):
    """Answer what waits; gives the tab's name, and what was shown."""

    def answer_all(desk, asked, *, pictures=(), stop_after=None):
        tab = desk.tabs.open()
        for each in asked:
            desk.tabs.put(tab, each.place, Conversation().ask("hi", pictures))

        async def collect():
            stop = asyncio.Event()
            if stop_after is not None:
                asyncio.get_running_loop().call_later(stop_after, stop.set)
            answers = Answering(desk, ENGLISH).answer(
                tab, asked, Settings(seed=1), key="mine", stop=stop
            )
            return [shown async for shown in answers]

        return tab, run(collect())

    return answer_all


def test_a_reply_is_asked_for_shown_and_kept(make_desk, answer):
    desk = make_desk([Says(text="Hel"), 0.2, Says(text="lo"), Ends(reason="stop")])
    tab, shown = answer(desk, CHAT)
    assert desk.controller.requests == [
        {
            "model": "a",
            "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
            "seed": 1,
            "images": "auto",
        }
    ]
    assert desk.controller.keys == ["mine"]
    kept = desk.tabs.get(tab, "chat").exchanges[0].reply
    assert (kept.text, kept.ending) == ("Hello", "stop")
    assert "dots" in str(shown[0])
    assert "<p>Hel</p>" in str(shown)
    assert "<p>Hello</p>" in str(shown[-1])


def test_trouble_is_kept_with_what_came_before(make_desk, answer):
    desk = make_desk([Says(text="Half"), AskError(Trouble.CUT, "gone")])
    tab, shown = answer(desk, CHAT)
    kept = desk.tabs.get(tab, "chat").exchanges[0].reply
    assert kept.text == "Half"
    assert kept.failure == "The reply broke off. Try again. gone"
    assert kept.failure in str(shown[-1])


def test_a_stop_keeps_what_is_there(make_desk, answer):
    desk = make_desk([Says(text="Half"), 60.0])
    tab, shown = answer(desk, CHAT, stop_after=0.2)
    kept = desk.tabs.get(tab, "chat").exchanges[0].reply
    assert (kept.text, kept.ending) == ("Half", "stopped")
    assert "Stopped." in str(shown[-1])
    assert desk.controller.open == 0


def test_two_are_answered_at_the_same_time(make_desk, answer):
    # Each waits for longer than both may take one after the other.
    desk = make_desk([1.0, Says(text="A")], [1.0, Says(text="B")])
    began = asyncio.new_event_loop()
    begin = began.time()
    tab, shown = answer(desk, PAIR)
    assert began.time() - begin < 1.9
    began.close()
    assert [request["model"] for request in desk.controller.requests] == ["a", "b"]
    texts = [desk.tabs.get(tab, place).exchanges[0].reply.text for place in ("left", "right")]
    assert texts == ["A", "B"]
    assert all(len(each) == 2 for each in shown)


def test_a_picture_that_was_removed_is_told(make_desk, answer, png):
    desk = make_desk()
    picture = desk.pictures.take_bytes(png())
    picture.path.unlink()
    _, shown = answer(desk, CHAT, pictures=(picture,))
    assert ENGLISH.picture_gone in str(shown)
    assert desk.controller.requests == []
