"""What the page says, in both languages."""

import pytest

from mllm_npu.serve.page.conversation import Drawn, Picture, Reply
from mllm_npu.serve.page.growth import Growth
from mllm_npu.serve.page.pictures import PictureError
from mllm_npu.serve.page.sentences import (
    say_bad_number,
    say_bad_picture,
    say_drawing,
    say_trouble,
    say_waiting,
)
from mllm_npu.serve.page.settings import SettingsError
from mllm_npu.serve.page.trouble import AskError, Trouble
from mllm_npu.serve.page.words import CHINESE, ENGLISH


@pytest.fixture
def growth(make_desk):
    def make(*, seconds=0, ahead=None, num_drawn=0, tmp="x"):
        made = Growth(pictures=make_desk().pictures, ahead=ahead)
        made.began -= seconds
        picture = Picture(path=tmp, shown=tmp, width=1, height=1)
        drawn = Reply(drawn=(Drawn(picture=picture, offset=0),))
        made.replies = dict.fromkeys(range(num_drawn), drawn)
        return made

    return make


def test_waiting(growth):
    assert say_waiting(growth(), ENGLISH) == ""
    assert say_waiting(growth(ahead=3), ENGLISH) == "3 ahead"
    assert say_waiting(growth(ahead=0, seconds=5), ENGLISH) == "Next in line · 5 s"
    assert say_waiting(growth(ahead=3), CHINESE) == "前面还有 3 个请求"


def test_drawing(growth):
    assert say_drawing(growth(ahead=2), ENGLISH, total=3) == "2 ahead"
    assert say_drawing(growth(ahead=2, num_drawn=1), ENGLISH, total=3) == "1 of 3 drawn"
    assert say_drawing(growth(seconds=9, num_drawn=1), CHINESE, total=3) == "已完成 1/3 张 · 9 秒"


@pytest.mark.parametrize("words", [ENGLISH, CHINESE])
@pytest.mark.parametrize("trouble", Trouble)
def test_every_trouble_tells_what_the_server_said(words, trouble):
    assert "as {it} is" in say_trouble(AskError(trouble, "as {it} is"), words)


def test_numbers():
    range_of = {"low": 0.0, "high": 1.0, "whole": False}
    assert (
        say_bad_number(SettingsError("top_p", **range_of), ENGLISH)
        == "Top-p: give a number from 0 to 1, or nothing."
    )
    open_range = {"low": 1, "high": None, "whole": True}
    assert "不小于 1 的整数" in say_bad_number(SettingsError("steps", **open_range), CHINESE)
    seed = SettingsError("seed", low=0, high=2**31 - 1, whole=True)
    assert "2147483647" in say_bad_number(seed, ENGLISH)


def test_pictures():
    assert "(too odd)" in say_bad_picture(PictureError("too odd"), ENGLISH)
    assert "20 MB" in say_bad_picture(PictureError("x"), ENGLISH)
