"""Counting rows become a question and a number."""

import pytest

from mllm_npu.data.tasks.counting import Counting
from mllm_npu.errors import SkipSample


def test_lengths_are_exact_and_the_number_is_learnt(make_row, png, assert_exact, rng, size):
    row = make_row(json_member={"thing": "ducks", "number": 7}, png=png(*size))
    assert_exact(Counting(), row)
    question, answer = Counting().to_conversation(row, rng).turns
    assert question.parts[1].text == "How many ducks?"
    assert (answer.parts[0].text, answer.learn, question.learn) == ("7", True, False)


def test_a_row_without_a_number_is_left_out(make_row, png, rng):
    row = make_row(json_member={"thing": "ducks"}, png=png(16, 16))
    with pytest.raises(SkipSample, match="number missing"):
        Counting().to_conversation(row, rng)
