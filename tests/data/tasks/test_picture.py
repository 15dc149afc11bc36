"""A picture alone is drawn, without text."""

from random import Random

import pytest

from mllm_npu.data.tasks.picture import Picture
from mllm_npu.errors import SkipSample
from mllm_npu.processing.conversation import DrawnImage


def test_the_picture_is_drawn_and_texts_are_not_used(make_row, png):
    row = make_row(png=png(5, 4), txt=b"a cat")
    [turn] = Picture().to_conversation(row, Random(0)).turns
    [part] = turn.parts
    assert isinstance(part, DrawnImage)
    assert part.picture.size == (5, 4)
    assert turn.learn
    [measure] = Picture().measure(row, len)
    assert (measure.num_text_tokens, measure.num_drawn, measure.reads) == (0, 1, ())


def test_a_row_without_a_picture_is_skipped(make_row):
    with pytest.raises(SkipSample):
        Picture().measure(make_row(txt=b"a cat"), len)
