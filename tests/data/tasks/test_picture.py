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
    [form] = Picture().forms(row, len)
    assert (form.num_text_tokens, form.num_learnt_tokens) == (0, 0)
    assert (form.num_drawn, form.reads) == (1, ())
    assert (form.num_systems, form.num_users, form.num_assistants) == (0, 0, 0)


def test_lengths_are_exact(make_row, png, assert_exact, size):
    [sample] = assert_exact(Picture(), make_row(png=png(*size), txt=b"a cat"))
    assert sample.draw_tiles.tolist() == [0]


@pytest.mark.parametrize("members", [{"txt": b"a cat"}, {"png": b"rubbish"}, {}])
def test_a_row_without_a_picture_is_skipped(make_row, members):
    with pytest.raises(SkipSample, match="picture"):
        Picture().forms(make_row(**members), len)
    with pytest.raises(SkipSample, match="picture"):
        Picture().to_conversation(make_row(**members), Random(0))
