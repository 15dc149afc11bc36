"""Read a short answer of a model: yes or no, a number, a color; English and Chinese."""

from __future__ import annotations

import re

_YES_NO = re.compile(
    r"不是|没有|不|否|没|是|有|对|\b(?:yes|yeah|no|not|none|isn't|aren't|don't|doesn't)\b",
    re.IGNORECASE,
)
_YES = frozenset({"是", "有", "对", "yes", "yeah"})

_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    *("nineteen", "twenty"),
)
_CHINESE = "零一二三四五六七八九十"
_NUMBERS = {word: number for number, word in enumerate(_WORDS)}
_NUMBERS |= {word: number for number, word in enumerate(_CHINESE)}
_NUMBERS |= {f"十{word}": 10 + number for number, word in enumerate(_CHINESE[1:10], 1)}
_NUMBERS |= {"两": 2, "no": 0, "none": 0, "没有": 0}
_NUMBER = re.compile(
    rf"\d+|没有|十[一二三四五六七八九]?|[{_CHINESE}两]|\b(?:{'|'.join([*_WORDS, 'no', 'none'])})\b",
    re.IGNORECASE,
)

COLORS = {
    "red": "红",
    "orange": "橙",
    "yellow": "黄",
    "green": "绿",
    "blue": "蓝",
    "purple": "紫",
    "pink": "粉",
    "brown": "棕",
    "black": "黑",
    "white": "白",
    "gray": "灰",
}
"""GenEval's ten colors and gray, with their Chinese character."""


def read_yes(text: str) -> bool | None:
    """Whether an answer affirms, by the first word in it that says yes or no; None without one."""
    found = _YES_NO.search(text)
    return None if found is None else found[0].lower() in _YES


def read_number(text: str) -> int | None:
    """The first number in an answer, in digits or as a word up to twenty; None without one."""
    found = _NUMBER.search(text)
    if found is None:
        return None
    word = found[0].lower()
    return _NUMBERS[word] if word in _NUMBERS else int(word)


def read_color(text: str, wanted: str) -> bool | None:
    """Whether an answer names a color, or affirms where it was asked for by its name.

    The first color in it counts; None where it names none that is known, and neither affirms nor
    denies.
    """
    spelled = text.lower().replace("grey", "gray")
    asked = wanted.lower().replace("grey", "gray")
    places = {
        name: found.start()
        for name in {*COLORS, asked}
        if (found := re.search(_pattern(name), spelled)) is not None
    }
    if places:
        return min(places, key=lambda name: (places[name], -len(name))) == asked
    return read_yes(text)


def _pattern(color: str) -> str:
    word = rf"\b{re.escape(color)}(?:d?ish)?\b"
    return f"{word}|{COLORS[color]}" if color in COLORS else word
