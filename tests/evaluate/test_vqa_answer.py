import pytest

from mllm_npu.errors import DataError
from mllm_npu.evaluate.vqa_answer import normal_answer, vqa_accuracy


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Stop.", "stop"),
        ("The STOP sign", "stop sign"),
        ("A dog, an owl?", "dog owl"),
        ("3.5", "3.5"),
        ("no. 5", "no 5"),
        ("1,000", "1000"),
        ("seven", "7"),
        ("None", "0"),
        ("eleven", "eleven"),
        ("dont", "don't"),
        ("wouldn'tve", "wouldn't've"),
        ("wouldnt've", "wouldn't've"),
        ("somebody'd", "somebodyd"),
        ("shes", "shes"),
        ("let's", "let 's"),
        ("Joe's", "joe 's"),
        ("coca-cola", "coca cola"),
        ("coca - cola", "coca cola"),
        ("7/11", "7 11"),
        ("(left) side", "left side"),
        ("one\ttwo\nthe three", "1 2 3"),
        ("  ", ""),
    ],
)
def test_answers_are_compared_in_one_form(text, normal):
    assert normal_answer(text) == normal


def test_a_mark_beside_a_blank_vanishes_everywhere():
    assert normal_answer("a-b -c") == "ab c"
    assert normal_answer("a-b-c") == "b c"


@pytest.mark.parametrize(
    ("num_same", "accuracy"),
    [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)],
)
def test_each_person_is_left_out_in_turn(num_same, accuracy):
    """With 3 of 10 alike: those three see two others (2/3), seven see three (1): 0.9."""
    answers = ["stop"] * num_same + ["go"] * (10 - num_same)
    assert vqa_accuracy("Stop!", answers) == pytest.approx(accuracy)


def test_answers_of_people_are_compared_in_the_same_form():
    assert vqa_accuracy("2", ["two", "Two.", "the two", "2"] + ["x"] * 6) == 1.0


def test_one_answer_is_too_few():
    with pytest.raises(DataError, match="1 answers"):
        vqa_accuracy("stop", ["stop"])
