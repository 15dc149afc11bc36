"""Texts that are weighed as replies, and questions that are too long for one."""

import pytest

from mllm_npu.errors import RequestError, SkipSample, TooLongError
from mllm_npu.processing.conversation import Conversation, Text, Turn, ask


def document(*words):
    parts = tuple(Text(text=each) for each in words)
    return Conversation(turns=(Turn(role="document", parts=parts),))


def test_a_text_that_follows_others_has_the_tokens_it_has_behind_them(make_processor):
    processor = make_processor()
    assert processor.encode_text("a cat") == processor.encode_text("a cat")
    before = processor.encode(document("draw:"), reply=True).input_ids.tolist()
    whole = processor.encode(document("draw:", " a 7"), reply=True).input_ids.tolist()
    assert whole == [*before, *processor.encode_text(" a 7")]
    assert processor.decode_text(processor.encode_text(" a 7")) == " a 7"


@pytest.mark.parametrize("words", ["", "a <img> b", "\ud800"])
def test_a_text_that_cannot_follow_others_is_refused(make_processor, words):
    with pytest.raises(RequestError):
        make_processor().encode_text(words)


def test_what_is_too_long_for_a_reply_is_told_apart_from_what_is_wrong(make_processor):
    processor = make_processor(max_tokens=20)
    with pytest.raises(TooLongError, match=r"max_tokens=20.*it has \d+ tokens"):
        processor.lay_out(ask("word " * 60), reply=True)
    with pytest.raises(TooLongError):
        processor.encode(ask("word " * 60), reply=True)
    with pytest.raises(SkipSample, match="max_tokens=20"):
        processor.lay_out(document("word " * 60))
    with pytest.raises(RequestError) as told:
        processor.lay_out(ask("a <img> b"), reply=True)
    assert not isinstance(told.value, TooLongError)
