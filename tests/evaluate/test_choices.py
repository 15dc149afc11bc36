"""Letters in written replies, and the likeliest of choices however their last bits fell."""

from dataclasses import replace

import pytest

from mllm_npu.evaluate.choices import (
    LETTERS,
    chosen_letter,
    likeliest,
    list_choices,
    read_letter,
)
from mllm_npu.inference.events import Likelihood


@pytest.fixture
def weighed(fakes):
    def make(*choices):
        found = tuple(
            Likelihood(text=text, logprob=logprob, num_tokens=num, is_greedy=False)
            for text, logprob, num in choices
        )
        return replace(fakes.make_reply(), choices=found)

    return make


@pytest.mark.parametrize(
    ("said", "letter"),
    [
        ("B", "B"),
        (" B", "B"),
        ("(B)", "B"),
        ("B. the second", "B"),
        ("The answer is B.", "B"),
        ("the answer is (c)", "C"),
        ("Answer: D", "D"),
        ("A or B? The answer is B", "B"),
        ("I think that it is C", "C"),
        ("A dog and a cat: option C", "C"),
        ("It is a dog, so D", "D"),
        ("I am sure: B", "B"),
        ("A", "A"),
        ("A dog", "A"),
        ("答案是C", "C"),
        ("答案:D", "D"),
        ("答案为 (B)", "B"),
        ("选B", "B"),
        ("应该选项A", "A"),
        ("", None),
        ("none of them", None),
        ("E", None),
        ("Because", None),
        ("b", None),
    ],
)
def test_a_letter_is_read(said, letter):
    assert read_letter(said, 4) == letter


def test_letters_go_as_far_as_there_are_choices():
    assert read_letter("H", 10) == "H"
    assert read_letter("C", 2) is None


def test_the_likeliest_choice_is_by_sum_by_token_or_by_byte(weighed):
    reply = weighed((" a", -2.0, 1), (" long answer", -3.0, 2), (" longest answer", -4.0, 4))
    assert [likeliest(reply, norm) for norm in ("none", "tokens", "bytes")] == [0, 2, 1]


def test_bytes_are_those_of_utf8(weighed):
    # 3 bytes each in UTF-8: -3 / 6 is above -2 / 3.
    assert likeliest(weighed(("二", -2.0, 1), ("十二", -3.0, 1)), "bytes") == 1


@pytest.mark.parametrize("noise", [0.0, 1e-6, -1e-6, 3e-5, -3e-5])
def test_of_equal_choices_the_first_is_taken_whatever_their_last_bits_are(weighed, noise):
    assert likeliest(weighed(("x", -9.0, 1), ("a", -2.0, 1), ("a", -2.0 + noise, 1))) == 1


@pytest.mark.parametrize("base", [-2.00005, -2.000049999, -1.99995])
def test_equal_choices_near_a_place_where_rounding_turns_are_equal_too(weighed, base):
    for noise in (2e-6, -2e-6):
        assert likeliest(weighed(("a", base, 1), ("b", base + noise, 1))) == 0


def test_choices_that_differ_are_told_apart(weighed):
    assert likeliest(weighed(("a", -2.0, 1), ("b", -1.999, 1))) == 1


def test_a_letter_is_that_of_the_likeliest_or_the_written_one(fakes, weighed):
    assert chosen_letter(weighed((" A", -2.0, 1), (" B", -1.0, 1)), 2) == "B"
    assert chosen_letter(fakes.make_reply("it is C"), 4) == "C"
    assert chosen_letter(fakes.make_reply("nothing"), 4) is None


def test_choices_stand_below_each_other():
    assert list_choices(["one", "two"]) == "A. one\nB. two\n"
    assert list_choices(["x"], "({letter}) {text} ") == "(A) x "
    assert len(list_choices(["x"] * 30).splitlines()) == len(LETTERS)
