import pytest

from mllm_npu.evaluate.open_answer import (
    Reading,
    find_numbers,
    has_right_answer,
    key_phrases,
    read_answers,
    read_number,
)

READING = Reading(
    trims=(None, "."),
    sentence=r"\n",
    signs=("so ", "is "),
    last_signs=("=",),
    numbers=(r"\d{1,3}(?:,\d{3})+", r"(?<![,\d])\d+(?![,\d])"),
    lowers=True,
)


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("Forty two.", ["forty two"]),
        ("The sum is 42.", ["42"]),
        ("So the sum is 42\nWe are done", ["42"]),
        ("It is 3\nx = 4", ["3", "4"]),
        ("x = 4\nand that is it", ["it"]),
        ("x = 3 is right", ["right"]),
        ("it is ,", ["it is ,"]),
        ("", [""]),
    ],
)
def test_the_shortest_end_behind_a_sign_counts(text, phrases):
    assert key_phrases(text, READING) == phrases


def test_a_sign_that_leaves_nothing_hides_those_before_it():
    assert key_phrases("so it is 7 =", READING) == ["so it is 7 ="]


def test_capitals_are_kept_where_they_are_told_apart():
    reading = Reading(trims=("。", None), sentence="。", signs=("是",))
    assert key_phrases(" 答案是DNA。", reading) == ["DNA"]
    assert key_phrases("没有。什么", reading) == ["没有。什么"]


def test_numbers_come_pattern_by_pattern():
    assert find_numbers("5 of 1,234 and 12,345,678", READING) == ["1,234", "12,345,678", "5"]


def test_answers_are_phrases_and_their_numbers_each_once():
    def normalize(text):
        return [read_number(text)] if read_number(text) is not None else [text]

    assert read_answers("It is 3 or 3\nso 3 3", READING, normalize) == ["3 or 3", "3 3", 3.0]


@pytest.mark.parametrize(
    ("text", "number"),
    [("1,234.567", 1234.57), ("-0.004", 0.0), ("1e3", 1000.0), ("3 m", None), ("", None)],
)
def test_numbers_have_two_digits_behind_the_point(text, number):
    assert read_number(text) == number


@pytest.mark.parametrize(
    ("answers", "right", "is_right"),
    [
        ([3.14], [3.14], True),
        (["the red fox"], ["red fox"], True),
        (["fox"], ["red fox"], False),
        ([1.0, "two"], ["two"], True),
        ([1.0], ["1"], False),
        ([], ["x"], False),
    ],
)
def test_a_right_answer_is_equal_or_within(answers, right, is_right):
    assert has_right_answer(answers, right) is is_right
