import pytest

from mllm_npu.evaluate.cmmmu_answers import (
    normalize,
    parse_judgement,
    parse_letters,
    read_filled,
)

CHOICES = {"A": "蓝色", "B": "绿色的树", "C": "红色", "D": ""}


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("正确答案是B。", "B"),
        ("(A) 蓝色\n(C) 红色", "AC"),
        ("答案：AC", "AC"),
        ("A和B里面选B", "B"),
        ("(A) 不对，C C C", "A"),
        ("应该是绿色的树", "B"),
        ("不知道", None),
        ("", None),
    ],
)
def test_letters_that_come_most_often_are_chosen(text, letters):
    assert parse_letters(text, CHOICES) == letters


@pytest.mark.parametrize(
    ("text", "judgement"),
    [
        ("对", "对"),
        ("错", "错"),
        ("正确。", "对"),
        ("答案是错误。", "错"),
        ("这个说法是错误的。", "错"),
        ("这种表达不合适", "错"),
        ("是否正确", None),
        ("我不知道", None),
        ("说法错误。所以对", None),
        ("", None),
    ],
)
def test_judgements(text, judgement):
    assert parse_judgement(text) == judgement


def test_a_denial_counts_as_approval_as_in_the_official_script():
    assert parse_judgement("不正确") == "对"


@pytest.mark.parametrize(
    ("text", "right", "answers"),
    [
        ("400", "400", [400.0]),
        ("对外作功为400 J", "400", ["400 J", 400.0]),
        ("所以答案是3.144。", "3.14", [3.14]),
        ("x=5", "5", [5.0]),
        ("拉伸线理", "拉伸", ["拉伸线理"]),
        ("结果为1，234", "1", ["1，234", 234.0]),
        ("deoxyribonucleic acid", "DNA", []),
        ("", "DNA", [""]),
    ],
)
def test_what_is_filled_in(text, right, answers):
    assert read_filled(text, right) == answers


def test_a_text_that_is_much_longer_than_the_right_one_is_no_answer():
    assert normalize("高" * 21, "高") == ["高" * 21]
    assert normalize("高" * 22, "高") == []
    assert normalize("高abc", "高a") == ["高abc"]
    assert normalize("高abcd", "高a") == []
    assert normalize(" 7,000.50 ", "7") == [7000.5]
