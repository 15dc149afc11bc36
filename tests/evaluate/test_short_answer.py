import pytest

from mllm_npu.evaluate.short_answer import read_color, read_number, read_yes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("yes", True),
        ("Yes, there is no doubt.", True),
        ("No.", False),
        ("There is no dog.", False),
        ("It is not there", False),
        ("There isn't any", False),
        ("是的", True),
        ("有", True),
        ("不是", False),
        ("没有狗", False),
        ("maybe", None),
        ("nothing", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_yes_and_no(text, said):
    assert read_yes(text) is said


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3", 3),
        ("There are 12 clocks.", 12),
        ("Two dogs", 2),
        ("seventeen", 17),
        ("zero", 0),
        ("There are no clocks.", 0),
        ("None.", 0),
        ("三只", 3),
        ("两个", 2),
        ("十二", 12),
        ("十", 10),
        ("没有", 0),
        ("many", None),
        ("someone", None),
        ("", None),
    ],
)
def test_numbers(text, number):
    assert read_number(text) == number


@pytest.mark.parametrize(
    ("text", "wanted", "is_right"),
    [
        ("red", "red", True),
        ("The cup is dark Blue.", "blue", True),
        ("blue and red", "red", False),
        ("blue and red", "blue", True),
        ("reddish", "red", True),
        ("bored", "red", None),
        ("grey", "gray", True),
        ("gray", "grey", True),
        ("红色", "red", True),
        ("teal", "teal", True),
        ("teal", "green", None),
        ("yes", "green", True),
        ("no", "green", False),
        ("no, it is red", "red", True),
        ("", "red", None),
    ],
)
def test_colors(text, wanted, is_right):
    assert read_color(text, wanted) is is_right
