from collections import Counter
from random import Random

import pytest

from mllm_npu.data.tasks.caption import Caption
from mllm_npu.data.tasks.ocr import Ocr
from mllm_npu.data.tasks.task import as_turns, choose, read_string
from mllm_npu.errors import SkipSample
from mllm_npu.processing.conversation import Text

QUESTION, ANSWER = (Text(text="q", learn=False),), (Text(text="a"),)


def test_a_chat_learns_the_answering_turn_only():
    user, assistant = as_turns(QUESTION, ANSWER, chat=True)
    assert (user.role, user.learn, user.parts) == ("user", False, QUESTION)
    assert (assistant.role, assistant.learn, assistant.parts) == ("assistant", True, ANSWER)


def test_a_document_is_one_turn_whose_parts_say_what_is_learnt():
    (document,) = as_turns(QUESTION, ANSWER, chat=False)
    assert (document.role, document.learn) == ("document", True)
    assert [part.learn for part in document.parts] == [False, None]


def test_texts_are_stripped_and_checked():
    assert read_string({"caption": "  a cat\n"}, "caption") == "a cat"
    for values in ({}, {"caption": 3}):
        with pytest.raises(SkipSample, match="caption missing"):
            read_string(values, "caption")
    with pytest.raises(SkipSample, match="caption empty"):
        read_string({"caption": " "}, "caption")


def test_a_form_is_the_one_asked_for_or_one_by_share():
    assert [choose([0.5, 0.5], Random(0), form) for form in (0, 1, 7)] == [0, 1, 1]
    rng = Random(1)
    found = Counter(choose([1, 0, 3], rng, None) for _ in range(2000))
    assert set(found) == {0, 2}
    assert 400 < found[0] < 600
    assert choose([1, 3], Random(5), None) == choose([1, 3], Random(5), None)


def test_the_meaning_names_every_setting_and_nothing_else(make_row, png):
    plain = Caption()
    meanings = {
        plain.meaning,
        Caption(draw_share=0.4).meaning,
        Caption(read_prompts=["", "x"]).meaning,
        Caption(draw_prompts=["draw {caption}"]).meaning,
        Caption(chat=True).meaning,
        Caption(min_similarity=0.1).meaning,
        Caption(min_resolution=3).meaning,
        Caption(min_aspect_ratio=0.2).meaning,
        Ocr().meaning,
        Ocr(chat=False).meaning,
    }
    assert len(meanings) == 10
    plain.forms(make_row(txt=b"x", png=png()), len)
    assert plain.meaning == Caption().meaning
