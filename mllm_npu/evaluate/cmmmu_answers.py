"""Read written replies to the three kinds of questions of CMMMU, as its official script does."""

from __future__ import annotations

from collections.abc import Mapping

from mllm_npu.evaluate.open_answer import Answer, Reading, key_phrases, read_answers, read_number

LETTERS = "ABCD"
RIGHT, WRONG = "对", "错"

_FILLED = Reading(
    trims=("。", None),
    sentence=r"。|\n",
    signs=(
        "是",
        "为",
        "所以",
        "等于",
        "方案",
        "选择",
        "正确答案",
        "因此",
        "最后",
        "答案",
        "结果",
    ),
    last_signs=("=",),
    numbers=(
        r"-?\d{1,3}(?:，\d{3})+",
        r"-?\d+(?:\.\d+)?[eE][+-]?\d+",
        r"-?(?:\d+\.\d+|\.\d+|\d+)(?![eE][+-]?\d+)(?!，\d)",
    ),
)
_JUDGED = Reading(
    trims=("。", None),
    sentence=r"。|\n",
    signs=("是", "为", "所以", "判断", "陈述", "说法", "表达", "答案", "结果"),
)
_YES = ("正确", "对", "准确", "肯定")
_NO = ("不合适", "否定", "错")
_UNCLEAR = ("对错", "是否", "否正确", "或者", "正确性", "对不")
_MORE_SIGNS, _MORE_LETTERS = 20, 2
"""A text that is so much longer than the right answer is none, whatever it has in it."""


def parse_letters(text: str, choices: Mapping[str, str]) -> str | None:
    """The letters a reply chooses, in their order; None where it chooses none.

    Letters in brackets count, else letters anywhere, else repeated choices; those that come most
    often are chosen, all of them.

    Args:
        text: the reply.
        choices: their texts by letter.
    """
    for sign in ",.!?;:'":
        text = text.strip(sign)
    for forms in (
        {letter: f"({letter})" for letter in choices},
        {letter: letter for letter in choices},
        {letter: choice for letter, choice in choices.items() if choice},
    ):
        counts = {letter: text.count(form) for letter, form in forms.items()}
        most = max(counts.values(), default=0)
        if most:
            return "".join(letter for letter, count in counts.items() if count == most)
    return None


def parse_judgement(text: str) -> str | None:
    """Whether a reply holds a statement for right; None where it says neither, or both alike.

    A phrase says yes where it has a word of approval anywhere, even within a denial (不正确).
    """
    votes = 0
    for phrase in dict.fromkeys(key_phrases(text, _JUDGED)):
        if any(word in phrase for word in _UNCLEAR):
            continue
        if any(word in phrase for word in _YES):
            votes += 1
        elif any(word in phrase for word in _NO):
            votes -= 1
    if not votes:
        return None
    return RIGHT if votes > 0 else WRONG


def read_filled(text: str, right: str) -> list[Answer]:
    """Numbers and texts that a reply fills in, where they are not much longer than the right one.

    Args:
        text: the reply.
        right: the right answer.
    """
    return read_answers(text, _FILLED, lambda phrase: normalize(phrase, right))


def normalize(text: str, right: str) -> list[Answer]:
    """The form in which an answer is compared; none where it is too long to be one."""
    text = text.strip()
    number = read_number(text)
    if number is not None:
        return [number]
    is_long = len(text) > len(right) + _MORE_SIGNS
    has_letters = _count_letters(text) > _count_letters(right) + _MORE_LETTERS
    return [] if is_long or has_letters else [text]


def _count_letters(text: str) -> int:
    return sum(sign.isascii() and sign.isalpha() for sign in text)
