"""A text that goes on after raw text is tokenised as if the two were one."""

import pytest

from mllm_npu.processing.anyres import AnyResolution
from mllm_npu.processing.chat_template import ChatTemplate
from mllm_npu.processing.processor import Processor
from mllm_npu.processing.tokenizer import load_tokenizer


def test_a_text_goes_on_after_raw_text_as_if_they_were_one(make_processor):
    processor = make_processor()
    tokenizer = processor.tokenizer
    for before, text in (("Draw a", " seven"), ("dra", "w"), ("x", "yz"), ("Answer:", " A")):
        whole = tuple(tokenizer.encode(before + text, add_special_tokens=False))
        first = tuple(tokenizer.encode(before, add_special_tokens=False))
        alone = processor.encode_text(text)
        expected = whole[len(first) :] if whole[: len(first)] == first else alone
        assert processor.encode_text(text, after=before) == expected
    assert processor.encode_text(" seven", after="") == processor.encode_text(" seven")


def test_sentencepiece_puts_no_blank_between_raw_text_and_what_follows(shared):
    pytest.importorskip("sentencepiece")
    tokenizer = load_tokenizer(path=str(shared / "golden" / "tok_sp"))
    processor = Processor(
        tokenizer=tokenizer,
        any_resolution=AnyResolution(grids=["1x1"], tile_size=16),
        chat_template=ChatTemplate(),
        num_read_tokens=4,
        num_drawn_tokens=4,
        max_tokens=64,
    )
    alone, after = processor.encode_text(" a dog"), processor.encode_text(" a dog", after="This is")
    assert len(alone) == len(after) + 1
    assert tokenizer.convert_ids_to_tokens(list(after))[0] == "▁a"
