import pytest

from mllm_npu.data.tasks.task import as_turns, longest, read_string
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


def test_longest_counts_the_longest(count_words):
    assert longest(["a b", "a b c", ""], count_words) == 3
    assert longest([""], count_words) == 0
