"""Requests of one prompt are grouped, seeds told apart, texts rolled into windows."""

import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'lm-eval>=0.4.13'")

from lm_eval.api.instance import Instance
from PIL import Image

from mllm_npu.evaluate.lm_eval_requests import (
    group_requests,
    in_chunks,
    pictures_of,
    read_wishes,
    roll_windows,
)

RED, BLUE = (Image.new("RGB", (2, 2), colour) for colour in ("red", "blue"))


def ask_for(*arguments):
    return [
        Instance(request_type="loglikelihood", doc={}, arguments=each, idx=0) for each in arguments
    ]


def test_requests_of_one_prompt_and_picture_are_a_group():
    requests = ask_for(
        ("p", "a"),
        ("q", "a"),
        ("p", "b"),
        ("p", "a"),
        ("p", "a", {"visual": [RED]}),
        ("p", "b", {"visual": [BLUE]}),
        ("p", "b", {"visual": [RED]}),
    )
    groups = group_requests(requests)
    assert [(group.prompt, group.pictures, group.numbers) for group in groups] == [
        ("p", (), {"a": [0, 3], "b": [2]}),
        ("q", (), {"a": [1]}),
        ("p", (RED,), {"a": [4], "b": [6]}),
        ("p", (BLUE,), {"b": [5]}),
    ]


@pytest.mark.parametrize(
    ("visual", "pictures"),
    [([RED, BLUE], (RED, BLUE)), ((RED,), (RED,)), (RED, (RED,)), (None, ()), ([], ())],
)
def test_pictures_come_in_every_wrapping(visual, pictures):
    [request] = ask_for(("p", "a", {"visual": visual}))
    assert pictures_of(request) == pictures


def test_the_same_prompt_again_has_the_next_seed():
    one, two = {"max_gen_toks": 1}, {"max_gen_toks": 2}
    requests = ask_for(
        ("p", one),
        ("p", one),
        ("q", one),
        ("p", two),
        ("p", dict(one)),
        ("p", one, {"visual": RED}),
    )
    wishes = read_wishes(requests, default_tokens=9, seed=10)
    assert [wish.options.seed for wish in wishes] == [10, 11, 10, 10, 12, 10]


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 20])
def test_windows_weigh_each_token_once_with_as_much_before_it_as_there_is(length):
    tokens = tuple(range(10, 20))
    windows = roll_windows(tokens, 1, length)
    assert tuple(token for _, weighed in windows for token in weighed) == tokens
    whole = (1, *tokens)
    end = 1
    for prompt, weighed in windows:
        end += len(weighed)
        assert (*prompt, *weighed) == whole[max(0, end - length - 1) : end]
    assert roll_windows((), 1, length) == []


def test_chunks_hold_everything_in_order():
    chunks = list(in_chunks(iter(range(1100))))
    assert [len(chunk) for chunk in chunks] == [512, 512, 76]
    assert [each for chunk in chunks for each in chunk] == list(range(1100))
    assert list(in_chunks([])) == []
